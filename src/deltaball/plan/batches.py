"""How many images pass a pack at a time. Here, because what jobs ask for is estimated by the same numbers."""

EVALUATION_BATCH = 1000  # images that a checkpoint's accuracy is taken on at a time

# Images of a network come to attacks in multiples of so many: a matrix product of another size may round differently.
IMAGES_MULTIPLE = 32

# Images × networks of one call of an attack, by device: what its activations may occupy. On a GPU fewer where these are
# large (`memory`).
IMAGES_AT_ONCE = {"cpu": 1024, "cuda": 65536}
