rule figures:
    input:
        f"{RESULTS}/networks.parquet",
        expand(f"{RESULTS}/{{table}}.parquet", table=["robustness", "curves", "convergence"]),
        code=sorted([*CODE.glob("figures/*"), *CODE.glob("analysis/*.py")]),
    output:
        expand(
            f"{RESULTS}/figures/{{figure}}.{{kind}}",
            figure=stages.figures(PLAN),
            kind=["png", "svg", "csv"],
        ),
    log:
        f"{RESULTS}/logs/figures.log",
    benchmark:
        f"{RESULTS}/benchmarks/figures.tsv"
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
        "deltaball figures --study {params.study:q} > {log:q} 2>&1"
