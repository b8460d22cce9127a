# Pictures for the page. Weights that are gone are not trained again for them.
rule examples:
    input:
        f"{RESULTS}/networks.parquet",
        f"{RESULTS}/robustness.parquet",
        code=CODE / "run/examples.py",
    output:
        f"{RESULTS}/examples.parquet",
    log:
        f"{RESULTS}/logs/examples.log",
    benchmark:
        f"{RESULTS}/benchmarks/examples.tsv"
    group:
        "tables"
    conda:
        "../envs/deltaball.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime="30m",
    params:
        study=STUDY,
    shell:
        "deltaball examples --study {params.study:q} > {log:q} 2>&1"
