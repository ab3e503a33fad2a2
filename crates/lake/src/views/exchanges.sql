SELECT
  coalesce("source", 'journal') AS "source",
  "index", "at", account, exchange, "key", model, route, stream, duration_ms,
  temperature, top_p, max_tokens, n, logprobs, messages,
  prompt_tokens, cached_tokens, completion_tokens, twin_tokens, cost_nanodollars,
  outcome, error_code, terms, terms_version, "grant",
  client_address AS address,
  client_network AS network,
  client_agent AS agent,
  sketch_exact AS prompt,
  sketch_opening AS template,
  sketch_words AS words,
  sketch_flags AS flags
FROM entries
WHERE entry = 'exchange'
