"""The papers whose claims a study can be held against. Light, like the study."""

PAPERS = {
    "004": "Global Adversarial Robustness Guarantees for Neural Networks",
    "001": "Network Robustness as a Mathematical Property: Training, Evaluation and Attack",
    "002": "Measuring Neural Net Robustness with Constraints",
    "000": "A General Framework for Defining and Optimizing Robustness",
    "003": "A General Framework for Defining and Optimizing Robustness (version of June 2021)",
}
