from deltaball.base.errors import alternatives, one_of


def test_the_close_names_are_offered():
    assert alternatives("tahn", ["relu", "tanh", "sigmoid"]) == "did you mean 'tanh'?"
    assert alternatives("mnist_5k", ["cifar10", "mnist", "mnist5k"]) == "did you mean 'mnist5k' or 'mnist'?"


def test_without_a_close_name_all_are():
    assert alternatives("step", ["tanh", "relu"]) == "possible: relu, tanh"
    assert alternatives(12, ["tanh", "relu"]) == "possible: relu, tanh"


def test_names_in_words():
    assert one_of(["a"]) == "'a'"
    assert one_of(["a", "b", "c"]) == "'a', 'b' or 'c'"
