"""The app's pages and the way between them."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import streamlit as st

from toybench.views import compare, explore, promote, state, sweep

ICON = Path(__file__).with_name("icon.svg")


def show(records: Path) -> None:
    """The app; `records` is the folder of the committed records, where there is one."""
    st.set_page_config(page_title="toybench", page_icon=str(ICON), layout="wide")
    pages = [
        st.Page(
            partial(state.page, explore.body), title="Explore", icon=":material/tune:", url_path="explore", default=True
        ),
        st.Page(partial(state.page, sweep.body), title="Sweep", icon=":material/grid_on:", url_path="sweep"),
        st.Page(
            partial(state.page, partial(compare.body, records)),
            title="Compare",
            icon=":material/leaderboard:",
            url_path="compare",
        ),
        st.Page(
            partial(state.page, promote.body), title="Promote", icon=":material/rocket_launch:", url_path="promote"
        ),
    ]
    state.know_pages({page.url_path or "explore": page for page in pages})
    st.navigation(pages, position="top").run()
