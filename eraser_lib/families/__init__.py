"""Everything that differs between LLaVA and Qwen2.5-VL, behind one interface."""

from eraser_lib.families.base import FAMILIES, Loaded, load_model

__all__ = ["FAMILIES", "Loaded", "load_model"]
