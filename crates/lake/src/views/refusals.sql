SELECT coalesce("source", 'journal') AS "source", "index", "at", account, error_code AS code
FROM entries
WHERE entry = 'refused'
