package stream

import (
	"pilotlight/backends/store/s3"
)

// Environment is what an engine needs beside what it inherits, so that both libraries that it reads S3 with (boto3 for listings, Amazon's C++
// one for weights) and SGLang itself mean the place that we mean. It holds no secret: keys are inherited, or found where they were found here.
func Environment(s s3.Settings) map[string]string {
	env := map[string]string{
		"RUNAI_STREAMER_S3_USE_VIRTUAL_ADDRESSING": "1",
		// The loader's own settings keep 40 connections busy, in pieces of 8 MiB. Where each connection is slow that is not enough: with these,
		// 384 MiB at 1 MB/s for each took 6.4 s instead of 10 s (bench/stream).
		"RUNAI_STREAMER_CHUNK_BYTESIZE": "2097152", "RUNAI_STREAMER_OBJ_CONCURRENCY": "64",
	}
	if s.PathStyle {
		env["RUNAI_STREAMER_S3_USE_VIRTUAL_ADDRESSING"] = "0"
	}
	if s.Endpoint != nil {
		// boto3 reads AWS_ENDPOINT_URL_S3, too, the C++ library only its own name and the general one.
		address := s.Endpoint.Scheme + "://" + s.Endpoint.Host
		env["AWS_ENDPOINT_URL"], env["AWS_ENDPOINT_URL_S3"], env["RUNAI_STREAMER_S3_ENDPOINT"] = address, address, address
	}
	region := s.Region
	if region == "" && s.Endpoint != nil {
		region = "us-east-1" // other servers want some region in signatures, and this is their default
	}
	if region != "" {
		// boto3 reads only the second name, and the C++ library prefers the first.
		env["AWS_REGION"], env["AWS_DEFAULT_REGION"] = region, region
	}
	if s.CABundle != "" {
		env["AWS_CA_BUNDLE"] = s.CABundle
	}
	if s.Anonymous {
		env["RUNAI_STREAMER_S3_UNSIGNED"] = "1"
	}
	if s.Anonymous || s.Fixed() {
		env["AWS_EC2_METADATA_DISABLED"] = "true" // else seconds go by in asking a service that nobody needs
	}
	return env
}
