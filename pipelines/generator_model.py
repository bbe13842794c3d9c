"""A released generator as an MLflow model: sample numbers (and classes) in, samples out.

MLflow runs this file by its path when it logs and when it loads the model; nothing imports it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext

_CODE = Path(__file__).parent / "code" / "gan_core.zip"
if _CODE.exists():  # beside the model, which brings this project's code along
    sys.path.insert(0, str(_CODE))

from gan_core.release import ReleasedGenerator, load_generator  # noqa: E402


class GeneratorModel(PythonModel):
    """``predict`` takes a frame with a column ``index`` and, if wanted, a column ``label``."""

    generator: ReleasedGenerator

    def load_context(self, context: PythonModelContext) -> None:
        """Read the weights (safetensors) and their description."""
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.generator = load_generator(Path(context.artifacts["generator"]), device)

    def predict(
        self,
        context: PythonModelContext,
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> np.ndarray:
        """Samples (N, ...) as float32, pictures in [-1, 1], at the source's own size."""
        index = torch.tensor(model_input["index"].to_numpy(np.int64))
        labels = None
        if "label" in model_input and self.generator.conditional:
            labels = torch.tensor(model_input["label"].to_numpy(np.int64))
        with torch.no_grad():
            samples = self.generator.generate(index, labels, native=True)
        return samples.float().cpu().numpy()


set_model(GeneratorModel())
