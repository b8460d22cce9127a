# outcomes.parquet is read where it is, and is not asked for: a copy of a study's tables may come without it.
rule analyse:
    input:
        f"{RESULTS}/networks.parquet",
        expand(f"{RESULTS}/{{table}}.parquet", table=["robustness", "curves", "convergence"]),
        code=sorted([*CODE.glob("analysis/*.py"), *CODE.glob("analysis/*.yaml")]),
    output:
        report(
            expand(f"{RESULTS}/tables/{{table}}.csv", table=[*stages.tables(PLAN)]),
            caption="captions/tables.rst",
            category="Tables",
        ),
        f"{RESULTS}/tables/scorecard.json",
    log:
        f"{RESULTS}/logs/analyse.log",
    benchmark:
        f"{RESULTS}/benchmarks/analyse.tsv"
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
        margin=PLAN.study.analysis.equivalence_margin,
        within=PLAN.study.analysis.within,
    shell:
        "deltaball analyse --study {params.study:q} > {log:q} 2>&1"
