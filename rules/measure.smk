rule measure:
    input:
        f"{RESULTS}/shards/{{shard}}.trained.parquet",
        coders=lambda wildcards: expand(
            f"{RESULTS}/autoencoders/{{coder}}.png",
            coder=[one.entry.name for one in PLAN.autoencoders(PLAN.shard(wildcards.shard).dataset)],
        ),
        # Pruned networks are compared with their dense trunks, which are measured once.
        pruned=lambda wildcards: expand(
            f"{RESULTS}/shards/{{shard}}.measured.parquet",
            shard=PLAN.needed_by(PLAN.shard(wildcards.shard)),
        ),
    output:
        f"{RESULTS}/shards/{{shard}}.measured.parquet",
        f"{RESULTS}/shards/{{shard}}.outcomes.parquet",
    log:
        f"{RESULTS}/logs/measure/{{shard}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/measure/{{shard}}.tsv"
    conda:
        "../envs/deltaball.yaml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: resources.measuring(PLAN, PLAN.shard(wildcards.shard)).mem_mb(attempt),
        runtime=lambda wildcards, attempt: resources.measuring(PLAN, PLAN.shard(wildcards.shard)).runtime(attempt),
        gpu=resources.gpu(PLAN),
        cpus_per_task=resources.cpus(PLAN),
        tries_left=lambda wildcards, attempt: launch.tries_left(workflow, attempt),
    params:
        study=STUDY,
        measures=lambda wildcards: stages.measures_digest(PLAN, PLAN.shard(wildcards.shard)),
        partial=lambda wildcards: PARTIAL["measure", wildcards.shard],
    shell:
        "deltaball measure --study {params.study:q} --expect {params.measures}"
        " --tries-left {resources.tries_left} {wildcards.shard:q} >> {log:q} 2>&1"


rule measures:
    input:
        expand(f"{RESULTS}/shards/{{shard}}.measured.parquet", shard=PLAN.shards),
        expand(f"{RESULTS}/shards/{{shard}}.outcomes.parquet", shard=PLAN.shards),
    output:
        expand(f"{RESULTS}/{{table}}.parquet", table=stages.MEASURED),
    log:
        f"{RESULTS}/logs/measures.log",
    benchmark:
        f"{RESULTS}/benchmarks/measures.tsv"
    group:
        "tables"
    conda:
        "../envs/deltaball.yaml"
    threads: 1
    resources:
        mem_mb=8000,
        runtime="30m",
    params:
        study=STUDY,
        plan=stages.collection_digest(PLAN),
    shell:
        "deltaball robustness --study {params.study:q} > {log:q} 2>&1"
