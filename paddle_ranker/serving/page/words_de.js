// What the page says in German, in all of its modules. words.js loads this when it is chosen.

export default {
  language: "Sprache", more_like: "Mehr davon", by_picture: "Mit Bild suchen", by_recording: "Mit Ton suchen",
  search: "Suchen", judge: "Bewerten", more: "Weiteres", skip: "Zu den Ergebnissen", query: "Suchanfrage", suggestions: "Vorschläge",
  settings: "Einstellungen", use: "Suchen nach", words: "Wörter", vectors: "Sinn", fused: "Vereint", ranked: "Geordnet", fusion: "Vereinigung",
  recall: "Treffer je Suche", rank_top: "Zu ordnende", top_k: "Anzeigen", group_by: "Fast Gleiches nur einmal", filters: "Weitere Filter", stages: "Schritte", results: "Ergebnisse", keys: "Tasten",
  rrf: "Kehrwerte der Ränge", weighted: "gewichtete Punkte", none: "nicht ordnen", yes: "ja", no: "nein",
  placeholder: "Suchen, zum Beispiel: {example}", documents: "{n} Dokumente", tries: "Beispiele: ",
  welcome: "Was suchen Sie?", how: "Wie gefunden?",
  sort: "Sortieren nach", all_words: "Mit allen Wörtern", key_for: "Diese Suche braucht einen Schlüssel", key_from: "Fragen Sie den Betreiber. Der Schlüssel bleibt, bis dieser Tab geschlossen wird.", key_wrong: "Dieser Schlüssel passt nicht. Bitte noch einmal versuchen.", key_send: "Weiter",
  found: "Die ersten {n} Ergebnisse aus {total} Dokumenten, in {time}.", matched: "{total} Dokumente mit einem der Wörter, in {time}.", matched_one: "{total} Dokumente, in {time}.", single: "1 Dokument, in {time}.", milliseconds: "{n} ms", working: "Suche läuft …",
  cut: "Mindestens", passed: "{percent}: {n} von {total}", all: "ohne Grenze", more_results: "Mehr anzeigen",
  moved: "von {from} auf {to}", stays: "bleibt auf {to}", ends: "endet auf {to}", place: "{stage}: {rank}", missing: "{stage}: nicht unter den ersten",
  probability: "Wahrscheinlichkeit", relative: "Balken: Relevanz im Vergleich zum ersten Ergebnis", why: "Warum", open: "Öffnen", relevant: "Passt", irrelevant: "Passt nicht",
  others: "{n} weitere", out: "Durch das Ordnen nicht mehr unter den ersten {n}", similar: "{n} ähnliche: {ids}",
  nothing: "Nichts gefunden für „{query}“.", filtered: "Filter: {filters}.", one_more: "Ein Zeichen ist zu kurz: Tippen Sie noch eines.",
  did_you_mean: "Meinten Sie", drop_filters: "Filter entfernen", use_all: "Nach Bedeutung suchen", shorter: "Oder versuchen Sie es kürzer oder mit gebräuchlicheren Wörtern.",
  corrected: "Nichts hat „{from}“: Gesucht wurde „{to}“.", synonyms: "„{from}“ schließt „{to}“ ein.", phrases: "Nur mit „{n}“.", unfound: "Nichts hat „{n}“: Ergebnisse brauchen es nicht.", unfound_with: "Nichts mit {others} hat „{n}“: Ergebnisse brauchen es nicht.", excluded: "Ohne „{n}“.", literal: "Wie geschrieben suchen", signs: "Die Zeichen als gewöhnliche Wörter suchen", was_literal: "Wie geschrieben gesucht, ohne Korrekturen.", not_literal: "Wie sonst suchen",
  gone: "Der Server antwortet nicht.", busy: "Der Server ist ausgelastet.", refused: "Der Server hat die Anfrage abgelehnt.", failed: "Auf dem Server ist ein Fehler aufgetreten.", unread: "Die Antwort des Servers ist nicht lesbar.",
  starting: "Der Server startet …", refused_unprocessable: "Ein Teil dieser Suche ist nicht möglich: {field}.", refused_invalid_request: "Die Anfrage hat nicht die richtige Form: {field}.", refused_too_large: "Die Anfrage ist zu groß: {field}.", refused_deadline_exceeded: "Es wurde nicht rechtzeitig fertig.", refused_unavailable: "Der Server ist nicht bereit.", refused_read_only: "Hier kann nichts geändert werden.", refused_not_found: "Der Server bietet das nicht an.", again: "Noch einmal versuchen", again_in: "In {n} s noch einmal versuchen.", stale: "Darunter steht noch die vorige Antwort, auf „{query}“.",
  late_rank: "Das Ordnen kam zu spät: Dies ist die vereinte Reihenfolge.", late: "Zu spät: {stage}.",
  nothing_close: "Nichts kommt Ihrer Suche nahe. Dies sind die nächsten Dokumente, die es gibt.", unranked: "Nichts wurde neu geordnet: Dies ist die vereinte Reihenfolge.", too_long: "Die Suchanfrage ist zu lang: Nur ihre ersten {n} Zeichen wurden verwendet.", too_long_by: "Die Suchanfrage ist zu lang für {name}: Gelesen wurden ihre ersten {n} Zeichen.", unsaved: "Nicht gespeichert: {why}", saved: "Gespeichert",
  unfamiliar: "Das Ordnen passt vielleicht nicht zu diesen Dokumenten: Die Punkte sollten um {expected} liegen und liegen bei {seen}.",
  key_focus: "tippen", key_move: "wählen", key_why: "warum", key_close: "schließen",

  from_title: "Titel", from_query: "schon gesucht",

  ascending: "{name}: niedrigste zuerst", descending: "{name}: höchste zuerst", newest: "{name}: neueste zuerst", oldest: "{name}: älteste zuerst",
  relevance: "Relevanz", more_values: "mehr", fewer_values: "weniger", facet_counts: "Zahlen: Dokumente mit irgendeinem der Wörter", from: "von", to: "bis",
  own_order: "übliche Reihenfolge", clear: "Alle entfernen", more_facets: "Weitere Felder ({n})", fewer_facets: "Weniger Felder", find_value: "In {name} suchen", values_found: "{n} Werte",
  nothing_meets: "Kein Dokument erfüllt die Filter.", details: "Details", page_before: "Vorige Seite", page_next: "Nächste Seite",
  any: "beliebig", remove: "{what} entfernen", fold: "Filter",

  about_words: "Ränge der Ergebnisse nach Wörtern", about_vectors: "Ränge der Ergebnisse nach Bedeutung",
  about_fused: "alle Listen vereint", about_ranked: "von einem Modell gelesen und geordnet",
  legend_up: "durch das Ordnen gestiegen", legend_down: "gefallen", legend_same: "unverändert", legend_new: "neu unter den ersten {n}", legend_out: "nicht mehr unter den ersten {n}",

  page: "Seite {n}", play_from: "Ab {time} abspielen",

  unreadable: "Diese Datei ist nicht lesbar: {name}", too_large: "Diese Datei ist zu groß, höchstens {most} MB: {name}",

  why_this: "Warum Nummer {n}?", why_out: "Warum nicht unter den ersten?", close: "Schließen",
  why_sure: "Das Modell ist zu {percent} sicher, dass es die Suchanfrage beantwortet.",
  why_place: "Das Modell hat es auf {to} gesetzt; vorher stand es auf {from}.",
  why_title: "Aus Ihrer Suche, im Titel: {terms}.", why_text: "Aus Ihrer Suche, im Text: {terms}.",
  why_corrected: "Es hat {terms}; so wurde Ihr Wort „{from}“ korrigiert.", why_synonym: "Es hat {terms}, ein Synonym Ihres Wortes „{from}“.",
  why_words: "Es hat Wörter der Suchanfrage.", why_vectors: "Seine Bedeutung kommt der Suchanfrage nahe.", why_field: "{name} kommt der Suchanfrage nahe.",
  why_ranker: "Das Modell hat es mit der Suchanfrage gelesen.", why_match: "Bis zu {n} Wörter in Folge sind die der Suchanfrage.", why_recall: "Sein Rang vor dem Ordnen zählt mit.", why_features: "Was sein Text mit der Suchanfrage teilt, wurde mit gewichtet.",
  why_missing: "Nicht gefunden über: {stage}.", why_behind: "Nicht unter den ersten über: {stage}.", numbers: "Zahlen", added: "trägt {n} bei", value: "Wert {n}", logit: "Logit {n}",
  at: "bei Zeichen {places}", rank: "{stage}: Rang {n}", path: "Seine Ränge", fields: "Felder", text: "Text",

  judge_title: "Bewerten", judge_off: "Bewerten ist aus: Der Server wurde ohne Protokoll gestartet.", judge_done: "Es ist nichts mehr zu bewerten.", back: "Zurück zur Suche",
  judge_progress: "{judged} bewertet, {left} übrig", disagree: "gefunden auf {recall}, geordnet auf {ranked}", undo: "Rückgängig",
  skip_pair: "Überspringen", grade: "Stufe {n}", judge_question: "Beantwortet dieses Dokument die Suchanfrage?", judge_empty: "Erst suchen, dann bewerten.",
};
