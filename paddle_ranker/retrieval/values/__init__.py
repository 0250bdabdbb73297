"""Values of documents' fields: their types, filters, facets, order, and the parameters of a search that name them.

    TYPES         each type of value: how it is read, compared and written
    Filter        conditions on fields, all of which must hold; typed by the schema
    Wanted        facets to count: values with their numbers, or ranges with round bounds
    Listing       which results of a list are wanted: how many, after which, in which order, grouped by what

A value is read by one function of its type, whoever asks: the inference of a schema, a filter, a sort. Comparing what
has no order is refused, never answered.

>>> from paddle_ranker.retrieval.values.filters import Filter
>>> [(one.field, one.operator, one.values) for one in Filter.parse(["lang=zh and year>=2020"]).conditions]
[('lang', '=', ('zh',)), ('year', '>=', ('2020',))]
"""
