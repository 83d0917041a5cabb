"""The report as one HTML file with pictures: needs the extra [report]."""

from sim.swarms.report_html.page import render_page

__all__ = ["render_page"]
