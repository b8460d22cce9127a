rule figures:
    input:
        f"{RESULTS}/networks.parquet",
        expand(f"{RESULTS}/{{table}}.parquet", table=["robustness", "curves", "convergence"]),
        code=sorted(CODE.glob("figures/*.*")) + sorted(CODE.glob("analysis/*.py")),
    output:
        report(
            expand(f"{RESULTS}/figures/{{figure}}.png", figure=stages.figures(PLAN)),
            caption="captions/figures.rst",
            category="Figures",
        ),
        expand(f"{RESULTS}/figures/{{figure}}.{{kind}}", figure=stages.figures(PLAN), kind=["svg", "csv"]),
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
        within=PLAN.study.analysis.within,
    shell:
        "deltaball figures --study {params.study:q} > {log:q} 2>&1"


for figure in [name for figures in stages.PAPERS_FIGURES.values() for name in figures]:

    # As in `snakemake --cores all figure2`.
    rule:
        name:
            figure
        input:
            lambda wildcards, figure=figure: [
                f"{RESULTS}/figures/{stages.paper_figure(PLAN, figure)}.{kind}" for kind in ("png", "svg", "csv")
            ],
