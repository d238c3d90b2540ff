// Package s3 reads and writes models in object stores that speak S3 (Amazon's, MinIO, Ceph, versitygw, …): a Source for package store, the
// shared second tier of several stores, and what an engine must be told to read the same place by itself.
//
// Where the store is and who we are comes from the variables and files that Amazon's own tools read (settings.go), so that what works with
// `aws s3 ls` works here. Requests are signed and parsed by minio-go; ranges, silence and retries are judged as package store does.
//
// It starts no engine and keeps no files. Its types are safe for concurrent use. Secrets appear in no error and no log line.
package s3
