"""Hold the models and indexes of a server: slots, each with one model or index, and the services that answer from them.

    Slot             one model or index: its folder, its queue, and the replacement that is being loaded
    Lineup           index, tower and ranker of one time; a request holds one from beginning to end
    SLOTS            the kinds of slots, each with the option that names its folder
    QueuedSearch     a search on the server: words, vectors, fusion, ranker, under one deadline
    Reloader         loads replacements while the old ones answer, and switches if all pass their checks

Before it serves, a loaded model is warmed up and has to compute rows alone and in a batch alike (`self_check`); an
export in float32 also has to give the scores that its folder states. A switch replaces the lineup at once; the old one
is closed when its last request has ended, or some seconds after the deadline of all.
"""
