# The store is undeclared: whatever makes this job run again, it trains only what the store lacks.
rule train:
    input:
        data=lambda wildcards: f"{RESULTS}/data/{PLAN.shard(wildcards.shard).dataset}.json",
        coders=lambda wildcards: expand(
            f"{RESULTS}/autoencoders/{{coder}}.png",
            coder=[one.entry.name for one in PLAN.trained_before(PLAN.shard(wildcards.shard))],
        ),
        pruned=lambda wildcards: expand(
            f"{RESULTS}/shards/{{shard}}.trained.parquet",
            shard=PLAN.needed_by(PLAN.shard(wildcards.shard)),
        ),
    output:
        f"{RESULTS}/shards/{{shard}}.trained.parquet",
    log:
        f"{RESULTS}/logs/train/{{shard}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/train/{{shard}}.tsv"
    conda:
        "../envs/deltaball.yaml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: resources.training(PLAN, PLAN.shard(wildcards.shard)).mem_mb(attempt),
        runtime=lambda wildcards, attempt: resources.training(PLAN, PLAN.shard(wildcards.shard)).runtime(attempt),
        gpu=resources.gpu(PLAN),
        cpus_per_task=resources.cpus(PLAN),
        tries_left=lambda wildcards, attempt: launch.tries_left(workflow, attempt),
    params:
        study=STUDY,
        networks=lambda wildcards: stages.shard_digest(PLAN, PLAN.shard(wildcards.shard)),
        partial=lambda wildcards: PARTIAL["train", wildcards.shard],
    shell:
        "deltaball train --study {params.study:q} --expect {params.networks}"
        " --tries-left {resources.tries_left} {wildcards.shard:q} >> {log:q} 2>&1"


rule networks:
    input:
        expand(f"{RESULTS}/shards/{{shard}}.trained.parquet", shard=PLAN.shards),
    output:
        f"{RESULTS}/networks.parquet",
    log:
        f"{RESULTS}/logs/networks.log",
    benchmark:
        f"{RESULTS}/benchmarks/networks.tsv"
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
        plan=stages.networks_digest(PLAN),
    shell:
        "deltaball networks --study {params.study:q} > {log:q} 2>&1"
