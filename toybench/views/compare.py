"""To come."""

from pathlib import Path

import streamlit as st


def body(records: Path | None = None) -> None:
    st.write("compare")
