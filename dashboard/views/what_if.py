"""What if: the speedup over two knobs at once, one knob live, plans, and what to measure first."""

import streamlit as st


def render() -> None:
    """Say what comes."""
    st.header("What if", anchor=False)
    st.info(
        "Not here yet: the speedup over two knobs at once, one knob live, plans, and what to measure first.",
        icon=":material/construction:",
    )


if __name__ == "__main__":
    render()
