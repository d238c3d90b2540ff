// Command driver runs scenarios with openai-go: one JSON request on standard input, one JSON line per scenario on
// standard output. It is built once per SDK version, each with a go.mod of its own.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/openai/openai-go/v3/responses"
	"github.com/openai/openai-go/v3/shared"
)

type request struct {
	BaseURL   string     `json:"base_url"`
	APIKey    string     `json:"api_key"`
	Scenarios []scenario `json:"scenarios"`
}

type scenario struct {
	Name        string            `json:"name"`
	Op          string            `json:"op"`
	Model       string            `json:"model"`
	Key         string            `json:"key"`
	Prompt      string            `json:"prompt"`
	MaxTokens   int64             `json:"max_tokens"`
	Stream      bool              `json:"stream"`
	Usage       bool              `json:"usage"`
	CancelAfter int               `json:"cancel_after"`
	Timeout     float64           `json:"timeout"`
	MaxRetries  *int              `json:"max_retries"`
	Headers     map[string]string `json:"headers"`
}

type toolCall struct {
	ID        string `json:"id"`
	Name      string `json:"name"`
	Arguments string `json:"arguments"`
}

type usage struct {
	Prompt     int64 `json:"prompt_tokens"`
	Completion int64 `json:"completion_tokens"`
	Total      int64 `json:"total_tokens"`
}

type fault struct {
	Class       string `json:"class"`
	Status      int    `json:"status"`
	Type        string `json:"type"`
	Code        string `json:"code"`
	Param       string `json:"param"`
	Message     string `json:"message"`
	BodyMessage string `json:"body_message"`
	RequestID   string `json:"request_id"`
}

type outcome struct {
	Scenario     string     `json:"scenario"`
	OK           bool       `json:"ok"`
	Text         string     `json:"text"`
	FinishReason string     `json:"finish_reason"`
	Usage        *usage     `json:"usage,omitempty"`
	Chunks       int        `json:"chunks"`
	ToolCalls    []toolCall `json:"tool_calls"`
	Dims         []int      `json:"dims,omitempty"`
	Models       []string   `json:"models,omitempty"`
	Model        string     `json:"model"`
	RequestID    string     `json:"request_id"`
	Cancelled    bool       `json:"cancelled"`
	First        float64    `json:"first"`
	Elapsed      float64    `json:"elapsed"`
	Error        *fault     `json:"error,omitempty"`
}

func main() {
	var req request
	if err := json.NewDecoder(os.Stdin).Decode(&req); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	encoder := json.NewEncoder(os.Stdout)
	for _, s := range req.Scenarios {
		key := s.Key
		if key == "" {
			key = req.APIKey
		}
		var response *http.Response
		options := []option.RequestOption{option.WithBaseURL(req.BaseURL), option.WithAPIKey(key), option.WithResponseInto(&response)}
		for name, value := range s.Headers {
			options = append(options, option.WithHeader(name, value))
		}
		if s.Timeout > 0 {
			options = append(options, option.WithRequestTimeout(time.Duration(s.Timeout*float64(time.Second))))
		}
		if s.MaxRetries != nil {
			options = append(options, option.WithMaxRetries(*s.MaxRetries))
		}
		client := openai.NewClient(options...)
		out := outcome{Scenario: s.Name}
		began := time.Now()
		err := answer(context.Background(), &client, s, &out, began)
		out.OK, out.Error = err == nil, describe(err, response)
		if response != nil {
			out.RequestID = response.Header.Get("x-request-id")
		}
		out.Elapsed = time.Since(began).Seconds()
		if err := encoder.Encode(out); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}

func answer(ctx context.Context, client *openai.Client, s scenario, out *outcome, began time.Time) error {
	switch s.Op {
	case "models":
		page, err := client.Models.List(ctx)
		if err != nil {
			return err
		}
		for _, model := range page.Data {
			out.Models = append(out.Models, model.ID)
		}
	case "model":
		got, err := client.Models.Get(ctx, s.Model)
		if err != nil {
			return err
		}
		out.Model = got.ID
	case "embeddings":
		got, err := client.Embeddings.New(ctx, openai.EmbeddingNewParams{
			Model: s.Model,
			Input: openai.EmbeddingNewParamsInputUnion{OfArrayOfStrings: []string{s.Prompt, "second"}},
		})
		if err != nil {
			return err
		}
		out.Model = got.Model
		for _, e := range got.Data {
			out.Dims = append(out.Dims, len(e.Embedding))
		}
	case "responses":
		return respond(ctx, client, s, out, began)
	default:
		if s.Stream {
			return stream(ctx, client, s, out, began)
		}
		got, err := client.Chat.Completions.New(ctx, body(s))
		if err != nil {
			return err
		}
		if len(got.Choices) == 0 {
			return errors.New("no choices")
		}
		choice := got.Choices[0]
		out.Text, out.FinishReason, out.Model = choice.Message.Content, choice.FinishReason, got.Model
		out.Usage = &usage{got.Usage.PromptTokens, got.Usage.CompletionTokens, got.Usage.TotalTokens}
		for _, call := range choice.Message.ToolCalls {
			out.ToolCalls = append(out.ToolCalls, toolCall{call.ID, call.Function.Name, call.Function.Arguments})
		}
	}
	return nil
}

func body(s scenario) openai.ChatCompletionNewParams {
	params := openai.ChatCompletionNewParams{
		Model:       s.Model,
		Messages:    []openai.ChatCompletionMessageParamUnion{openai.UserMessage(s.Prompt)},
		MaxTokens:   openai.Int(s.MaxTokens),
		Temperature: openai.Float(0),
	}
	switch s.Op {
	case "tools":
		params.Tools = []openai.ChatCompletionToolUnionParam{openai.ChatCompletionFunctionTool(shared.FunctionDefinitionParam{
			Name: "get_weather", Description: openai.String("weather of a city"),
			Parameters: shared.FunctionParameters{
				"type": "object", "properties": map[string]any{"city": map[string]any{"type": "string"}}, "required": []string{"city"},
			},
		})}
		params.ToolChoice = openai.ChatCompletionToolChoiceOptionUnionParam{OfAuto: openai.String("required")}
	case "json_object":
		params.ResponseFormat = openai.ChatCompletionNewParamsResponseFormatUnion{OfJSONObject: &shared.ResponseFormatJSONObjectParam{}}
	case "json_schema":
		params.ResponseFormat = openai.ChatCompletionNewParamsResponseFormatUnion{OfJSONSchema: &shared.ResponseFormatJSONSchemaParam{
			JSONSchema: shared.ResponseFormatJSONSchemaJSONSchemaParam{Name: "person", Strict: openai.Bool(true), Schema: map[string]any{
				"type": "object", "additionalProperties": false, "required": []string{"name", "age"},
				"properties": map[string]any{
					"name": map[string]any{"type": "string", "maxLength": 12}, "age": map[string]any{"type": "integer"},
				},
			}},
		}}
	}
	return params
}

func stream(ctx context.Context, client *openai.Client, s scenario, out *outcome, began time.Time) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	params := body(s)
	if s.Usage {
		params.StreamOptions = openai.ChatCompletionStreamOptionsParam{IncludeUsage: openai.Bool(true)}
	}
	events := client.Chat.Completions.NewStreaming(ctx, params)
	defer events.Close()
	for events.Next() {
		chunk := events.Current()
		out.Chunks++
		out.Model = chunk.Model
		if chunk.JSON.Usage.Valid() {
			out.Usage = &usage{chunk.Usage.PromptTokens, chunk.Usage.CompletionTokens, chunk.Usage.TotalTokens}
		}
		for _, choice := range chunk.Choices {
			if choice.Delta.Content != "" {
				if out.First == 0 {
					out.First = time.Since(began).Seconds()
				}
				out.Text += choice.Delta.Content
			}
			for _, call := range choice.Delta.ToolCalls {
				for int64(len(out.ToolCalls)) <= call.Index {
					out.ToolCalls = append(out.ToolCalls, toolCall{})
				}
				entry := &out.ToolCalls[call.Index]
				entry.ID += call.ID
				entry.Name += call.Function.Name
				entry.Arguments += call.Function.Arguments
			}
			if choice.FinishReason != "" {
				out.FinishReason = choice.FinishReason
			}
		}
		if s.CancelAfter > 0 && out.Chunks >= s.CancelAfter {
			out.Cancelled = true
			return nil
		}
	}
	return events.Err()
}

// respond uses the Responses API.
func respond(ctx context.Context, client *openai.Client, s scenario, out *outcome, began time.Time) error {
	params := responses.ResponseNewParams{
		Model:           s.Model,
		Input:           responses.ResponseNewParamsInputUnion{OfString: openai.String(s.Prompt)},
		MaxOutputTokens: openai.Int(s.MaxTokens),
		Temperature:     openai.Float(0),
	}
	if !s.Stream {
		got, err := client.Responses.New(ctx, params)
		if err != nil {
			return err
		}
		out.takeResponse(got)
		out.Text = got.OutputText()
		return nil
	}
	events := client.Responses.NewStreaming(ctx, params)
	defer events.Close()
	for events.Next() {
		event := events.Current()
		out.Chunks++
		switch event.Type {
		case "response.output_text.delta":
			if out.First == 0 {
				out.First = time.Since(began).Seconds()
			}
			out.Text += event.Delta
		case "response.completed", "response.incomplete", "response.failed":
			out.takeResponse(&event.Response)
		}
	}
	return events.Err()
}

// takeResponse tells the end of an answer in the words of chat completions.
func (o *outcome) takeResponse(got *responses.Response) {
	o.Model, o.FinishReason = string(got.Model), string(got.Status)
	switch got.Status {
	case responses.ResponseStatusCompleted:
		o.FinishReason = "stop"
	case responses.ResponseStatusIncomplete:
		o.FinishReason = "length"
	}
	if got.JSON.Usage.Valid() {
		o.Usage = &usage{got.Usage.InputTokens, got.Usage.OutputTokens, got.Usage.TotalTokens}
	}
}

// describe names an error as the other SDKs do: this one has a single type.
func describe(err error, response *http.Response) *fault {
	if err == nil {
		return nil
	}
	f := &fault{Class: fmt.Sprintf("%T", err), Message: err.Error()}
	var api *openai.Error
	switch {
	case errors.As(err, &api):
		f.Class, f.Status = "openai.Error", api.StatusCode
		f.Type, f.Code, f.Param, f.BodyMessage = api.Type, api.Code, api.Param, api.Message
		if api.Response != nil {
			f.RequestID = api.Response.Header.Get("x-request-id")
		}
	case errors.Is(err, context.DeadlineExceeded):
		f.Class = "context.DeadlineExceeded"
	}
	if f.RequestID == "" && response != nil {
		f.RequestID = response.Header.Get("x-request-id")
	}
	return f
}
