# Trained once, before the jobs that need it; those find it in the store.
rule autoencoder:
    input:
        lambda wildcards: f"{RESULTS}/data/{PLAN.autoencoder(wildcards.coder).entry.dataset}.json",
    output:
        f"{RESULTS}/autoencoders/{{coder}}.png",
    log:
        f"{RESULTS}/logs/autoencoders/{{coder}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/autoencoders/{{coder}}.tsv"
    conda:
        "../envs/deltaball.yaml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: resources.autoencoding(PLAN, PLAN.autoencoder(wildcards.coder)).mem_mb(
            attempt
        ),
        runtime=lambda wildcards, attempt: resources.autoencoding(PLAN, PLAN.autoencoder(wildcards.coder)).runtime(
            attempt
        ),
        gpu=resources.gpu(PLAN),
        cpus_per_task=resources.cpus(PLAN),
    params:
        study=STUDY,
        training=lambda wildcards: PLAN.autoencoder(wildcards.coder).id,
    shell:
        "deltaball autoencoder --study {params.study:q} {wildcards.coder:q} > {log:q} 2>&1"
