"""The toy under your fingers: `streamlit run app.py`."""

from pathlib import Path

from lm import launch, promote
from toybench.views.pages import show

show(records=Path(__file__).parent / "experiments" / "records", bridge=promote, launch=launch)
