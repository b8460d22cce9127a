rule report:
    input:
        f"{RESULTS}/networks.parquet",
        expand(f"{RESULTS}/{{table}}.parquet", table=["robustness", "curves", "convergence"]),
        rules.analyse.output,
        rules.figures.output,
        f"{RESULTS}/examples.parquet" if stages.pictures(PLAN) else [],
        code=sorted(CODE.glob("report/*.*")) + sorted(CODE.glob("analysis/*.py")),
    output:
        report(f"{RESULTS}/report.html", caption="captions/page.rst", category="Report"),
        f"{RESULTS}/README.md",
    log:
        f"{RESULTS}/logs/report.log",
    benchmark:
        f"{RESULTS}/benchmarks/report.tsv"
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
        quoted=stages.file_digest(Path(STUDY)),
    shell:
        "deltaball report --study {params.study:q} > {log:q} 2>&1"


# The last: fails where a row that the study asks for is in no table, and names it.
rule complete:
    input:
        f"{RESULTS}/networks.parquet",
        f"{RESULTS}/robustness.parquet",
        f"{RESULTS}/PROVENANCE.md",
    output:
        f"{RESULTS}/complete.txt",
    log:
        f"{RESULTS}/logs/complete.log",
    benchmark:
        f"{RESULTS}/benchmarks/complete.tsv"
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
        "deltaball complete --study {params.study:q} > {output:q} 2> {log:q}"


rule provenance:
    input:
        f"{RESULTS}/networks.parquet",
        expand(f"{RESULTS}/{{table}}.parquet", table=["robustness", "curves", "convergence"]),
    output:
        f"{RESULTS}/PROVENANCE.md",
    log:
        f"{RESULTS}/logs/provenance.log",
    benchmark:
        f"{RESULTS}/benchmarks/provenance.tsv"
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
        quoted=stages.file_digest(Path(STUDY)),
    shell:
        "deltaball provenance --study {params.study:q} > {log:q} 2>&1"
