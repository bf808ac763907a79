"""The export format "onnx": an ONNX model with its description as metadata.

The input `images` is uint8 `[B, H, W, 3]`, the outputs have the names of the tasks. The description is the entry
"description" of the model's `metadata_props`, in JSON. Reading the file takes an ONNX runtime and nothing of this
package; docs/export.md shows how.
"""

import importlib.util
import json
from collections.abc import Sequence
from typing import Any

import mtl_jax
from mtl_jax.inference.export_formats import ExportFormat
from mtl_jax.inference.program import Program
from mtl_jax.nn import isolate, resize
from mtl_jax.runtime import messages


class OnnxFormat(ExportFormat):
    """An ONNX model."""

    suffix = ".onnx"
    dtypes = ("float32",)  # ONNX Runtime has no convolution in bfloat16 on CPUs

    def check_installed(self) -> None:
        if importlib.util.find_spec("onnx") is None:
            raise ValueError(
                f"the export format 'onnx' needs the package onnx, which is not installed: {messages.install('onnx')}"
            )

    def encode(
        self, program: Program, description: dict[str, Any], platforms: Sequence[str]
    ) -> tuple[bytes, dict[str, Any]]:
        # Only this method needs the package onnx.
        import onnx

        from mtl_jax import to_onnx

        with isolate.fused():
            model = to_onnx.to_model(
                program.predict,
                program.images,
                program.tasks,
                name=description["input"]["name"],
                calls=dict.fromkeys(resize.BILINEAR, to_onnx.resize_linear) | {resize.ALIGNED: to_onnx.resize_aligned},
            )
        model.producer_version = mtl_jax.__version__
        complete = description | {
            "lifetime": {
                "words": (
                    f"ONNX operator set {to_onnx.OPSET}, IR version {to_onnx.IR_VERSION}: ONNX Runtime 1.14 and later "
                    "read it, and later versions go on reading earlier operator sets."
                ),
                "source": "https://onnxruntime.ai/docs/reference/compatibility.html",
                "opset": to_onnx.OPSET,
                "ir_version": to_onnx.IR_VERSION,
            },
        }
        onnx.helper.set_model_props(model, {"description": json.dumps(complete)})
        onnx.checker.check_model(model, full_check=True)
        return model.SerializeToString(), complete
