// What the page says in French, in all of its modules. words.js loads this when it is chosen.

export default {
  language: "Langue", more_like: "Documents semblables", by_picture: "Chercher par image", by_recording: "Chercher par son",
  search: "Rechercher", judge: "Évaluer", more: "Autres", skip: "Aller aux résultats", query: "Recherche", suggestions: "Suggestions",
  settings: "Réglages", use: "Chercher par", words: "Mots", vectors: "Sens", fused: "Fusion", ranked: "Classement", fusion: "Méthode de fusion",
  recall: "Résultats de chaque recherche", rank_top: "Classer les premiers", top_k: "Afficher", group_by: "Regrouper les quasi-doublons", filters: "Plus de filtres", stages: "Étapes", results: "Résultats", keys: "Touches",
  rrf: "rangs inverses", weighted: "scores pondérés", none: "sans classement", yes: "oui", no: "non",
  placeholder: "Votre recherche, par exemple : {example}", documents: "{n} documents", tries: "Essayez : ",
  welcome: "Que cherchez-vous ?", how: "Comment trouvé ?",
  sort: "Trier par", all_words: "Avec tous les mots", key_for: "Cette recherche demande une clé", key_from: "Demandez-la à l’administrateur. La clé est gardée jusqu’à la fermeture de cet onglet.", key_wrong: "Cette clé n’est pas la bonne. Réessayez.", key_send: "Continuer",
  found: "Les {n} premiers résultats parmi {total} documents, en {time}.", matched: "{total} documents avec un de ces mots, en {time}.", matched_one: "{total} documents, en {time}.", single: "1 document, en {time}.", milliseconds: "{n} ms", working: "Recherche en cours…",
  cut: "Au moins", passed: "{percent} : {n} sur {total}", all: "sans limite", more_results: "Afficher plus",
  moved: "de {from} à {to}", stays: "reste à {to}", ends: "finit à {to}", place: "{stage} : {rank}", missing: "{stage} : pas parmi les premiers",
  probability: "Probabilité", relative: "Barre : pertinence par rapport au premier", why: "Pourquoi", open: "Ouvrir", relevant: "Pertinent", irrelevant: "Pas pertinent",
  others: "{n} autres", out: "Sortis des {n} premiers par le classement", similar: "{n} semblables : {ids}",
  nothing: "Rien trouvé pour « {query} ».", filtered: "Filtres : {filters}.", one_more: "Un seul caractère ne suffit pas : tapez-en un autre.",
  did_you_mean: "Vouliez-vous dire", drop_filters: "Retirer les filtres", use_all: "Chercher par le sens", shorter: "Ou essayez des mots plus courts ou plus courants.",
  corrected: "Rien ne contient « {from} » : recherche de « {to} ».", synonyms: "« {from} » comprend « {to} ».", phrases: "Seulement avec « {n} ».", unfound: "Rien ne contient « {n} » : les résultats peuvent s’en passer.", unfound_with: "Rien de ce qui contient {others} ne contient « {n} » : les résultats peuvent s’en passer.", excluded: "Sans « {n} ».", literal: "Chercher tel quel", signs: "Chercher les signes comme des mots ordinaires", was_literal: "Recherche telle quelle, sans corrections.", not_literal: "Chercher comme d’habitude",
  gone: "Le serveur ne répond pas.", busy: "Le serveur est occupé.", refused: "Le serveur a refusé la demande.", failed: "Une erreur s’est produite sur le serveur.", unread: "La réponse du serveur est illisible.",
  starting: "Le serveur démarre…", refused_unprocessable: "Une partie de cette recherche n’est pas valable : {field}.", refused_invalid_request: "La demande n’a pas la bonne forme : {field}.", refused_too_large: "La demande est trop grande : {field}.", refused_deadline_exceeded: "Ce n’était pas fini à temps.", refused_unavailable: "Le serveur n’est pas prêt.", refused_read_only: "Rien ne peut être modifié ici.", refused_not_found: "Le serveur n’offre pas cela.", again: "Réessayer", again_in: "Réessayez dans {n} s.", stale: "Ci-dessous, toujours la réponse précédente, à « {query} ».",
  late_rank: "Le classement est venu trop tard : voici l’ordre de la fusion.", late: "En retard : {stage}.",
  nothing_close: "Rien n’est proche de votre recherche. Voici les documents les moins éloignés.", unranked: "Rien n’a été reclassé : voici l’ordre de la fusion.", too_long: "La recherche est trop longue : seuls ses {n} premiers caractères ont servi.", too_long_by: "La recherche est trop longue pour {name}, qui lit ses {n} premiers caractères.", unsaved: "Non enregistré : {why}", saved: "Enregistré",
  unfamiliar: "Le classement ne convient peut-être pas à ces documents : ses scores devraient être autour de {expected}, et sont de {seen}.",
  key_focus: "écrire", key_move: "choisir", key_why: "pourquoi", key_close: "fermer",

  from_title: "titre", from_query: "déjà cherché",

  ascending: "{name} : ordre croissant", descending: "{name} : ordre décroissant", newest: "{name} : du plus récent au plus ancien", oldest: "{name} : du plus ancien au plus récent",
  relevance: "pertinence", more_values: "plus", fewer_values: "moins", facet_counts: "Nombres : documents avec l’un des mots", from: "de", to: "à",
  own_order: "ordre habituel", clear: "Tout retirer", more_facets: "Autres champs ({n})", fewer_facets: "Moins de champs", find_value: "Chercher dans {name}", values_found: "{n} valeurs",
  nothing_meets: "Aucun document ne répond aux filtres.", details: "Détails", page_before: "Page précédente", page_next: "Page suivante",
  any: "tous", remove: "Retirer {what}", fold: "Filtres",

  about_words: "rangs des résultats par les mots", about_vectors: "rangs des résultats par le sens",
  about_fused: "toutes les listes réunies", about_ranked: "lus et classés par un modèle",
  legend_up: "monté au classement", legend_down: "descendu", legend_same: "inchangé", legend_new: "entré dans les {n} premiers", legend_out: "sorti des {n} premiers",

  page: "page {n}", play_from: "Lire à partir de {time}",

  unreadable: "Ce fichier est illisible : {name}", too_large: "Ce fichier est trop grand, {most} Mo au plus : {name}",

  why_this: "Pourquoi le numéro {n} ?", why_out: "Pourquoi pas parmi les premiers ?", close: "Fermer",
  why_sure: "Le modèle est sûr à {percent} qu’il répond à la recherche.",
  why_place: "Le modèle l’a mis à {to} ; il était à {from}.",
  why_title: "De votre recherche, dans le titre : {terms}.", why_text: "De votre recherche, dans le texte : {terms}.",
  why_corrected: "Il contient {terms}, correction de votre mot « {from} ».", why_synonym: "Il contient {terms}, synonyme de votre mot « {from} ».",
  why_words: "Il partage des mots avec la recherche.", why_vectors: "Son sens est proche de celui de la recherche.", why_field: "{name} est proche de la recherche.",
  why_ranker: "Le modèle l’a lu avec la recherche.", why_match: "Jusqu’à {n} mots de suite sont ceux de la recherche.", why_recall: "Son rang avant le classement compte aussi.", why_features: "Ce que son texte partage avec la recherche compte aussi.",
  why_missing: "Non trouvé par : {stage}.", why_behind: "Pas parmi les premiers par : {stage}.", numbers: "Nombres", added: "ajoute {n}", value: "valeur {n}", logit: "logit {n}",
  at: "au caractère {places}", rank: "{stage} : rang {n}", path: "Ses rangs", fields: "Champs", text: "Texte",

  judge_title: "Évaluer", judge_off: "L’évaluation est désactivée : le serveur a été lancé sans journal.", judge_done: "Il n’y a plus rien à évaluer.", back: "Retour à la recherche",
  judge_progress: "{judged} évalués, {left} restants", disagree: "trouvé à {recall}, classé à {ranked}", undo: "Annuler",
  skip_pair: "Passer", grade: "note {n}", judge_question: "Ce document répond-il à la recherche ?", judge_empty: "Cherchez d’abord, puis évaluez.",
};
