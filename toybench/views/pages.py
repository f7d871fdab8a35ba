"""The app's pages and the way between them."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import streamlit as st

from toybench.views import explore, state

ICON = Path(__file__).with_name("icon.svg")


# The first page is drawn before the others are loaded.


def _sweep() -> None:
    from toybench.views import sweep

    sweep.body()


def _compare(records: Path) -> None:
    from toybench.views import compare

    state.desk().keep_only(state.session(), ())  # what another page began
    compare.body(records)


def _promote(bridge: Any, launch: Any) -> None:
    from toybench.views import promote

    promote.body(bridge, launch)


def _real() -> None:
    from toybench.views import real

    real.body()


def show(records: Path, bridge: Any, launch: Any) -> None:
    """The app.

    Args:
        records: the folder of the committed records, where there is one.
        bridge: the module that promotes, `lm.promote`, which nothing here may import.
        launch: the module that starts what was promoted, `lm.launch`, likewise.
    """
    st.set_page_config(page_title="toybench", page_icon=str(ICON), layout="wide")
    pages = [
        st.Page(
            partial(state.page, explore.body), title="Explore", icon=":material/tune:", url_path="explore", default=True
        ),
        st.Page(partial(state.page, _sweep), title="Sweep", icon=":material/grid_on:", url_path="sweep"),
        st.Page(
            partial(state.page, partial(_compare, records)),
            title="Compare",
            icon=":material/leaderboard:",
            url_path="compare",
        ),
        st.Page(
            partial(state.page, partial(_promote, bridge, launch)),
            title="Promote",
            icon=":material/rocket_launch:",
            url_path="promote",
        ),
        st.Page(partial(state.page, _real), title="Workers", icon=":material/group_work:", url_path="workers"),
    ]
    state.know_pages({page.url_path or "explore": page for page in pages})
    st.navigation(pages, position="top").run()
