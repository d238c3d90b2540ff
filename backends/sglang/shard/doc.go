// Package shard makes, with SGLang's own code, the weights of each tensor parallel rank into files of their own (SGLang's sharded_state), so
// that a replica's ranks each read their part and nothing else. It runs a small Python program in the engine's own environment, which loads the
// model as a server would and has every rank write what it holds; it checks what came of it and publishes it in the store under a key of
// all that the files depend on. It also says whether such files fit a replica.
//
// It decides nothing about when, or on which GPUs: whoever calls it has been given these.
package shard
