"""Files of the search page and of `/judge`: HTML, a style sheet, scripts. `serving/http/page.py` serves them.

search.js      a search from the form to its answer, and clicks
answer.js      an answer as a list; `rows.js` draws each of its documents, with its file
keys.js        keys and clicks on rows
pictures.js    a search by an example: a picture or a sound
server.js      all requests
"""
