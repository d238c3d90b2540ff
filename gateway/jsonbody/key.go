package jsonbody

// Key is a top-level member that Scan notes. The zero Key is Model.
type Key uint8

// The members of interest: what routing and limits read, and what only the gateway may set.
const (
	Model Key = iota
	Stream
	StreamOptions
	Background
	N
	MaxTokens
	MaxCompletionTokens
	MaxOutputTokens
	User
	PreviousResponseID
	PromptCacheKey
	CacheSalt
	LoraPath
	Tools
	Instructions
	Messages
	Prompt
	Input
	RID
	Priority
	BootstrapHost
	BootstrapPort
	BootstrapRoom
	SessionID
	SessionParams
	CustomLogitProcessor

	numKeys
	noKey = numKeys
)

var keyNames = [numKeys]string{
	Model:                "model",
	Stream:               "stream",
	StreamOptions:        "stream_options",
	Background:           "background",
	N:                    "n",
	MaxTokens:            "max_tokens",
	MaxCompletionTokens:  "max_completion_tokens",
	MaxOutputTokens:      "max_output_tokens",
	User:                 "user",
	PreviousResponseID:   "previous_response_id",
	PromptCacheKey:       "prompt_cache_key",
	CacheSalt:            "cache_salt",
	LoraPath:             "lora_path",
	Tools:                "tools",
	Instructions:         "instructions",
	Messages:             "messages",
	Prompt:               "prompt",
	Input:                "input",
	RID:                  "rid",
	Priority:             "priority",
	BootstrapHost:        "bootstrap_host",
	BootstrapPort:        "bootstrap_port",
	BootstrapRoom:        "bootstrap_room",
	SessionID:            "session_id",
	SessionParams:        "session_params",
	CustomLogitProcessor: "custom_logit_processor",
}

// maxKeyLen is the length of the longest name in keyNames.
const maxKeyLen = len("custom_logit_processor")

// reserved are the members that only the gateway may set: they choose an engine's request id, its place
// in the queue, another engine's address or code to run. Drop them from what clients send.
var reserved = [...]Key{
	RID, Priority, BootstrapHost, BootstrapPort, BootstrapRoom, SessionID, SessionParams, CustomLogitProcessor,
}

// String gives the key as it is written in JSON.
func (k Key) String() string {
	if k >= numKeys {
		return "unknown"
	}
	return keyNames[k]
}

// keyOf gives the Key called name, or noKey. The compiler turns the switch into a search by length and
// content without allocation.
func keyOf(name []byte) Key {
	if len(name) > maxKeyLen {
		return noKey
	}
	switch string(name) {
	case "model":
		return Model
	case "stream":
		return Stream
	case "stream_options":
		return StreamOptions
	case "background":
		return Background
	case "n":
		return N
	case "max_tokens":
		return MaxTokens
	case "max_completion_tokens":
		return MaxCompletionTokens
	case "max_output_tokens":
		return MaxOutputTokens
	case "user":
		return User
	case "previous_response_id":
		return PreviousResponseID
	case "prompt_cache_key":
		return PromptCacheKey
	case "cache_salt":
		return CacheSalt
	case "lora_path":
		return LoraPath
	case "tools":
		return Tools
	case "instructions":
		return Instructions
	case "messages":
		return Messages
	case "prompt":
		return Prompt
	case "input":
		return Input
	case "rid":
		return RID
	case "priority":
		return Priority
	case "bootstrap_host":
		return BootstrapHost
	case "bootstrap_port":
		return BootstrapPort
	case "bootstrap_room":
		return BootstrapRoom
	case "session_id":
		return SessionID
	case "session_params":
		return SessionParams
	case "custom_logit_processor":
		return CustomLogitProcessor
	}
	return noKey
}
