// Package store keeps model weights on local disk. It fetches them from a Source (a hub, a folder, a plain web server), verifies every file
// before it counts, and publishes them in the cache layout of the hub's own client, so that huggingface_hub, transformers and engines read
// them with HF_HUB_OFFLINE=1, and what those fetched is used here.
//
// The layout, under the store's path:
//
//	.locks/models--ORG--NAME/BLOB.lock     flock(2), shared with the hub's client: whoever fetches a blob holds its lock
//	models--ORG--NAME/blobs/BLOB           content; named by sha256 (large files) or by git's object id (others), as the hub's ETags are
//	models--ORG--NAME/snapshots/COMMIT/F   symbolic link to ../../blobs/BLOB
//	models--ORG--NAME/refs/REVISION        the commit that a branch or tag stood for
//	models--ORG--NAME/trees/COMMIT.json    the commit's whole listing (huggingface_hub 2 writes and reads the same file)
//	models--ORG--NAME/.pilotlight/         unfinished downloads; ours alone, and never in a place where others look
//
// It starts no engine and decides nothing about when to fetch. A Store is safe for concurrent use, also by several processes.
package store
