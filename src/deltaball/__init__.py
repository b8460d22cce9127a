"""deltaball: how robust are thousands of neural networks inside a δ-ball, and what does it cost them?"""

__version__ = "0.1.0"
