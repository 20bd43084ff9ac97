"""What a merge did, for people: numbers, pictures and a page, from what it left beside its weights.

report.py: the report, with its numbers typed.
read_report.py: reads the record and the measurements of a result into a report.
measurements.py: the file of measured times and memory.
scores.py: scores on held-out rows, each candidate's beside what else was evaluated on them.
findings.py: what the page says in words.
page.py: the page, from the template and the style sheet in templates/.
page_file.py: a page in a file that a person names.
table.py: a table of the page, and how its numbers are written.
fit_tables.py: tables of scores, residuals, changes and hidden states.
run_tables.py: tables of solves, time, memory, files and digests.
canvas.py: figures in the report's style, as SVG within the page and as PNG.
palette.py: their colours, which follow the page's colour scheme.
inline_svg.py: SVG files of matplotlib as elements of the page.
heat_map.py: heat maps by depth.
depth_axis.py: labels of steps along an axis.
score_picture.py, residual_picture.py, change_picture.py, hidden_state_picture.py, memory_picture.py: a picture each.
"""
