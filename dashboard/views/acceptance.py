"""Entropy and acceptance: accept length against policy entropy by recipe, with its bounds and data."""

import streamlit as st


def render() -> None:
    """Say what comes."""
    st.header("Entropy and acceptance", anchor=False)
    st.info(
        "Not here yet: accept length against policy entropy by recipe, with its bounds and data.",
        icon=":material/construction:",
    )


if __name__ == "__main__":
    render()
