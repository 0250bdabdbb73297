"""Files of the search page and of `/judge`: HTML, a style sheet, scripts. `serving/http/page.py` serves them."""
