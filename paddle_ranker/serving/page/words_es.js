// What the page says in Spanish, in all of its modules. words.js loads this when it is chosen.

export default {
  language: "Idioma", more_like: "Más como este", by_picture: "Buscar por imagen", by_recording: "Buscar por sonido",
  search: "Buscar", judge: "Evaluar", more: "Más", skip: "Ir a los resultados", query: "Búsqueda", suggestions: "Sugerencias",
  settings: "Ajustes", use: "Buscar por", words: "Palabras", vectors: "Sentido", fused: "Fusión", ranked: "Orden", fusion: "Método de fusión",
  recall: "Resultados de cada búsqueda", rank_top: "Ordenar los primeros", top_k: "Mostrar", group_by: "Agrupar los casi iguales", filters: "Más filtros", stages: "Pasos", results: "Resultados", keys: "Teclas",
  rrf: "rangos inversos", weighted: "puntuaciones ponderadas", none: "sin ordenar", yes: "sí", no: "no",
  placeholder: "Su búsqueda, por ejemplo: {example}", documents: "{n} documentos", tries: "Pruebe: ",
  welcome: "¿Qué busca?", how: "¿Cómo se encontró?",
  sort: "Ordenar por", all_words: "Con todas las palabras", key_for: "Esta búsqueda necesita una clave", key_from: "Pídala a quien la administra. La clave se guarda hasta cerrar esta pestaña.", key_wrong: "Esa clave no es correcta. Inténtelo de nuevo.", key_send: "Continuar",
  found: "Los {n} primeros resultados de {total} documentos, en {time}.", matched: "{total} documentos con alguna palabra, en {time}.", matched_one: "{total} documentos, en {time}.", single: "1 documento, en {time}.", milliseconds: "{n} ms", working: "Buscando…",
  cut: "Al menos", passed: "{percent}: {n} de {total}", all: "sin límite", more_results: "Mostrar más",
  moved: "de {from} a {to}", stays: "sigue en {to}", ends: "acaba en {to}", place: "{stage}: {rank}", missing: "{stage}: no está entre los primeros",
  probability: "Probabilidad", relative: "Barra: relevancia respecto al primero", why: "Por qué", open: "Abrir", relevant: "Relevante", irrelevant: "No relevante",
  others: "{n} más", out: "Fuera de los {n} primeros por el orden del modelo", similar: "{n} parecidos: {ids}",
  nothing: "No se ha encontrado nada para «{query}».", filtered: "Filtros: {filters}.", one_more: "Un carácter es muy poco: escriba otro.",
  did_you_mean: "¿Quiso decir", drop_filters: "Quitar los filtros", use_all: "Buscar por sentido", shorter: "O pruebe con palabras más cortas o más comunes.",
  corrected: "Nada tiene «{from}»: se ha buscado «{to}».", synonyms: "«{from}» incluye «{to}».", phrases: "Solo con «{n}».", unfound: "Nada tiene «{n}»: los resultados pueden no tenerlo.", unfound_with: "Nada con {others} tiene «{n}»: los resultados pueden no tenerlo.", excluded: "Sin «{n}».", literal: "Buscar tal como está escrito", signs: "Buscar los signos como palabras corrientes", was_literal: "Se ha buscado tal como está escrito, sin correcciones.", not_literal: "Buscar como siempre",
  gone: "El servidor no responde.", busy: "El servidor está ocupado.", refused: "El servidor ha rechazado la petición.", failed: "Ha fallado el servidor.", unread: "No se puede leer la respuesta del servidor.",
  starting: "El servidor está arrancando…", refused_unprocessable: "Una parte de esta búsqueda no es válida: {field}.", refused_invalid_request: "La petición no tiene la forma correcta: {field}.", refused_too_large: "La petición es demasiado grande: {field}.", refused_deadline_exceeded: "No ha acabado a tiempo.", refused_unavailable: "El servidor no está listo.", refused_read_only: "Aquí no se puede cambiar nada.", refused_not_found: "El servidor no ofrece esto.", again: "Intentar de nuevo", again_in: "Inténtelo de nuevo en {n} s.", stale: "Debajo sigue la respuesta anterior, a «{query}».",
  late_rank: "El modelo no ha ordenado a tiempo: este es el orden de la fusión.", late: "Con retraso: {stage}.",
  nothing_close: "Nada se acerca a su búsqueda. Estos son los documentos más próximos que hay.", unranked: "Ningún modelo ha ordenado esto: este es el orden de la fusión.", too_long: "La búsqueda es demasiado larga: solo se han usado sus {n} primeros caracteres.", too_long_by: "La búsqueda es demasiado larga para {name}, que lee sus {n} primeros caracteres.", unsaved: "No guardado: {why}", saved: "Guardado",
  unfamiliar: "Puede que el modelo no sirva para estos documentos: sus puntuaciones deberían rondar {expected}, y son {seen}.",
  key_focus: "escribir", key_move: "elegir", key_why: "por qué", key_close: "cerrar",

  from_title: "título", from_query: "ya buscado",

  ascending: "{name}: de menor a mayor", descending: "{name}: de mayor a menor", newest: "{name}: de más nuevo a más antiguo", oldest: "{name}: de más antiguo a más nuevo",
  relevance: "relevancia", more_values: "más", fewer_values: "menos", facet_counts: "Números: documentos con alguna de las palabras", from: "de", to: "a",
  own_order: "orden habitual", clear: "Quitar todos", more_facets: "Más campos ({n})", fewer_facets: "Menos campos", find_value: "Buscar en {name}", values_found: "{n} valores",
  nothing_meets: "Ningún documento cumple los filtros.", details: "Detalles", page_before: "Página anterior", page_next: "Página siguiente",
  any: "todos", remove: "Quitar {what}", fold: "Filtros",

  about_words: "rangos de los resultados por palabras", about_vectors: "rangos de los resultados por sentido",
  about_fused: "todas las listas en una", about_ranked: "leídos y ordenados por un modelo",
  legend_up: "subido por el modelo", legend_down: "bajado", legend_same: "sin cambio", legend_new: "nuevo entre los {n} primeros", legend_out: "fuera de los {n} primeros",

  page: "página {n}", play_from: "Reproducir desde {time}",

  unreadable: "No se puede leer este archivo: {name}", too_large: "Este archivo es demasiado grande, como mucho {most} MB: {name}",

  why_this: "¿Por qué es el número {n}?", why_out: "¿Por qué no está entre los primeros?", close: "Cerrar",
  why_sure: "El modelo está seguro en un {percent} de que responde a la búsqueda.",
  why_place: "El modelo lo ha puesto en {to}; antes estaba en {from}.",
  why_title: "De su búsqueda, en el título: {terms}.", why_text: "De su búsqueda, en el texto: {terms}.",
  why_corrected: "Tiene {terms}, corrección de su palabra «{from}».", why_synonym: "Tiene {terms}, sinónimo de su palabra «{from}».",
  why_words: "Comparte palabras con la búsqueda.", why_vectors: "Su significado es próximo al de la búsqueda.", why_field: "{name} es próximo a la búsqueda.",
  why_ranker: "El modelo lo ha leído junto con la búsqueda.", why_match: "Hasta {n} palabras seguidas son las de la búsqueda.", why_recall: "Su rango antes de ordenar también cuenta.", why_features: "Lo que su texto comparte con la búsqueda también cuenta.",
  why_missing: "No se ha encontrado por: {stage}.", why_behind: "No está entre los primeros por: {stage}.", numbers: "Números", added: "añade {n}", value: "valor {n}", logit: "logit {n}",
  at: "en el carácter {places}", rank: "{stage}: rango {n}", path: "Sus rangos", fields: "Campos", text: "Texto",

  judge_title: "Evaluar", judge_off: "No se puede evaluar: el servidor se inició sin registro.", judge_done: "No queda nada por evaluar.", back: "Volver a la búsqueda",
  judge_progress: "{judged} evaluados, quedan {left}", disagree: "encontrado en {recall}, ordenado en {ranked}", undo: "Deshacer",
  skip_pair: "Saltar", grade: "nota {n}", judge_question: "¿Responde este documento a la búsqueda?", judge_empty: "Busque primero y evalúe después.",
};
