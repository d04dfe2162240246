"""Timeline: the simulated cluster as it runs: replicas, trainer, weight syncs, staleness."""

import streamlit as st


def render() -> None:
    """Say what comes."""
    st.header("Timeline", anchor=False)
    st.info(
        "Not here yet: the simulated cluster as it runs: replicas, trainer, weight syncs, staleness.",
        icon=":material/construction:",
    )


if __name__ == "__main__":
    render()
