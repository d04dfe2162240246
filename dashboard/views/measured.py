"""Measured vs predicted: a log beside its prediction, calibrated and forecast, and the scorecard."""

import streamlit as st


def render() -> None:
    """Say what comes."""
    st.header("Measured vs predicted", anchor=False)
    st.info(
        "Not here yet: a log beside its prediction, calibrated and forecast, and the scorecard.",
        icon=":material/construction:",
    )


if __name__ == "__main__":
    render()
