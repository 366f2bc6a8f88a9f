# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Report of a drive: one HTML file with every frame's pictures, detections, sensor weights and attention.

`report_frame.ReportFrame` is one moment, `result_frame.report_frame` makes one of a detector's frame and result, and
`html_report.write_report` writes the file.
"""
