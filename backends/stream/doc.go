// Package stream prepares starts whose weights go from an object store to the device without a copy on disk, by SGLang's own streaming loader
// (runai-model-streamer; `--load-format runai_streamer`). It finds out beforehand, and says in words, what the loader would die of a minute
// later in none; makes the variables that lead it and the libraries it uses to the same place with the same identity; and lays the other
// files of the model (configuration, tokenizer), which the store has fetched, where SGLang looks for its own copy of them.
//
// Facts are those of SGLang 0.5.15 (srt/utils/runai_utils.py, model_loader/loader.py) and runai-model-streamer 0.17.0. Functions are safe for
// concurrent use. It starts no engine.
package stream
