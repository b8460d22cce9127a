localrules:
    data,


# Runs where Snakemake runs: cluster nodes often have no network to download from.
rule data:
    output:
        f"{RESULTS}/data/{{dataset}}.json",
    log:
        f"{RESULTS}/logs/data/{{dataset}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/data/{{dataset}}.tsv"
    conda:
        "../envs/deltaball.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime="30m",
    params:
        study=STUDY,
        fingerprint=lambda wildcards: PLAN.facts[wildcards.dataset].fingerprint,
    shell:
        "deltaball data --study {params.study:q} {wildcards.dataset:q} > {log:q} 2>&1"
