"""The matrix and the timeline as web pages: one file each, that asks nobody for anything."""

from ice_punch.lab.page.document import matrix_page, timeline_page

__all__ = ["matrix_page", "timeline_page"]
