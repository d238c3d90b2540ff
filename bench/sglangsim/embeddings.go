package sglangsim

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"math"
	"net/http"
	"slices"
	"time"
)

// embeddingSize is the length of a vector unless the request asks for another.
const embeddingSize = 64

// embed makes a unit vector that depends on nothing but the text.
func embed(text string, size int) []float32 {
	h := fnv.New64a()
	h.Write([]byte(text)) // never fails (hash.Hash)
	x := h.Sum64() | 1
	v := make([]float32, size)
	sum := 0.0
	for i := range v {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		v[i] = float32(int32(x>>32)) / math.MaxInt32
		sum += float64(v[i]) * float64(v[i])
	}
	for i := range v {
		v[i] /= float32(math.Sqrt(sum))
	}
	return v
}

// embeds refuses what only an embedding model can do.
func (s *Server) embeds() error {
	if s.opts.IsEmbedding || s.opts.EmbedAndGenerate {
		return nil
	}
	return badRequest("This model does not appear to be an embedding model by default. Please add `--is-embedding` when launching the server or try another model.")
}

// shortWork is a request that is prefilled and not decoded. It takes its place among the others for the time of a first token,
// and tells whether there is somebody to answer with more than an error.
func (s *Server) shortWork(w http.ResponseWriter, r *http.Request, tokens int) bool {
	s.reached()
	j := newJob(newID(), tokens, []plan{{pieces: []string{""}}}, false)
	j.choices = 0 // nothing is generated
	out, err := s.generate(r.Context(), j, s.nextFaults(), func(_, _ int) error { return nil })
	return s.answers(w, out, err)
}

func (s *Server) embeddings(w http.ResponseWriter, r *http.Request) {
	var req struct {
		Input          json.RawMessage `json:"input"`
		EncodingFormat string          `json:"encoding_format"`
		Dimensions     *int            `json:"dimensions"`
	}
	if err := decode(r, &req); err != nil {
		writeError(w, err)
		return
	}
	size := embeddingSize
	if req.Dimensions != nil {
		size = *req.Dimensions
	}
	err := s.embeds()
	var texts []string
	switch {
	case err != nil:
	case len(req.Input) == 0:
		err = missing("input")
	case size < 1 || size > 1<<16:
		err = badRequest("dimensions must be at least 1")
	case req.EncodingFormat != "" && req.EncodingFormat != "float" && req.EncodingFormat != "base64":
		err = badRequest("encoding_format must be float or base64")
	default:
		texts, err = prompts(req.Input)
	}
	tokens := 0
	for _, text := range texts {
		n := countTokens(text)
		if _, roomErr := s.room(&n, 0); roomErr != nil {
			err = roomErr
		}
		tokens += n
	}
	if err != nil {
		writeError(w, err)
		return
	}
	if !s.shortWork(w, r, tokens) {
		return
	}
	data := make([]map[string]any, len(texts))
	for i, text := range texts {
		v := embed(text, size)
		data[i] = map[string]any{"object": "embedding", "index": i, "embedding": v}
		if req.EncodingFormat == "base64" {
			raw, err := binary.Append(nil, binary.LittleEndian, v)
			if err != nil {
				panic("BUG: a slice of float32 has a binary form: " + err.Error())
			}
			data[i]["embedding"] = base64.StdEncoding.EncodeToString(raw)
		}
	}
	// The answer names the path of the model, not the name that the client used: SGLang does so too.
	writeJSON(w, http.StatusOK, map[string]any{"object": "list", "data": data, "model": s.path(), "usage": usage{PromptTokens: tokens, TotalTokens: tokens}})
}

// similarity of two texts, 0 to 1.
func similarity(a, b string) float64 {
	x, y, dot := embed(a, embeddingSize), embed(b, embeddingSize), 0.0
	for i := range x {
		dot += float64(x[i]) * float64(y[i])
	}
	return (1 + dot) / 2
}

func (s *Server) rerank(w http.ResponseWriter, r *http.Request) {
	var req struct {
		Query           string   `json:"query"`
		Documents       []string `json:"documents"`
		TopN            *int     `json:"top_n"`
		ReturnDocuments *bool    `json:"return_documents"`
	}
	err := decode(r, &req)
	switch {
	case err != nil:
	case req.Query == "":
		err = badRequest("Query cannot be empty")
	case len(req.Documents) == 0:
		err = badRequest("Documents cannot be empty")
	}
	if err != nil {
		writeError(w, err)
		return
	}
	if !s.shortWork(w, r, countTokens(req.Query)*len(req.Documents)) {
		return
	}
	type ranked struct {
		Score    float64        `json:"score"`
		Document *string        `json:"document"`
		Index    int            `json:"index"`
		MetaInfo map[string]any `json:"meta_info"`
	}
	out := []ranked{}
	for i, doc := range req.Documents {
		hit := ranked{Score: similarity(req.Query, doc), Document: &doc, Index: i, MetaInfo: map[string]any{"id": newID(), "prompt_tokens": countTokens(req.Query) + countTokens(doc)}}
		if req.ReturnDocuments != nil && !*req.ReturnDocuments {
			hit.Document = nil
		}
		out = append(out, hit)
	}
	slices.SortStableFunc(out, func(a, b ranked) int {
		if a.Score > b.Score {
			return -1
		}
		if a.Score < b.Score {
			return 1
		}
		return 0
	})
	if req.TopN != nil && *req.TopN >= 0 && *req.TopN < len(out) {
		out = out[:*req.TopN]
	}
	writeJSON(w, http.StatusOK, out)
}

func (s *Server) score(w http.ResponseWriter, r *http.Request) {
	var req struct {
		Model         string          `json:"model"`
		Query         json.RawMessage `json:"query"`
		Items         json.RawMessage `json:"items"`
		LabelTokenIDs []int           `json:"label_token_ids"`
		ApplySoftmax  bool            `json:"apply_softmax"`
	}
	err := decode(r, &req)
	var query, items []string
	if err == nil && (len(req.Query) == 0 || len(req.Items) == 0) {
		err = missing("query")
	}
	if err == nil {
		query, err = prompts(req.Query)
	}
	if err == nil {
		items, err = prompts(req.Items)
	}
	if err != nil {
		writeError(w, err)
		return
	}
	if !s.shortWork(w, r, countTokens(query[0])*len(items)) {
		return
	}
	scores := [][]float64{}
	for _, item := range items {
		row, sum := []float64{}, 0.0
		for _, id := range req.LabelTokenIDs {
			v := similarity(query[0]+item, fmt.Sprint(id))
			if req.ApplySoftmax {
				v = math.Exp(v)
			}
			row, sum = append(row, v), sum+v
		}
		if req.ApplySoftmax {
			for i := range row {
				row[i] /= sum
			}
		}
		scores = append(scores, row)
	}
	tokens := countTokens(query[0]) * len(items)
	writeJSON(w, http.StatusOK, map[string]any{"scores": scores, "model": req.Model, "usage": usage{PromptTokens: tokens, TotalTokens: tokens}, "object": "scoring"})
}

func (s *Server) classify(w http.ResponseWriter, r *http.Request) {
	var req struct {
		Model string          `json:"model"`
		Input json.RawMessage `json:"input"`
	}
	err := decode(r, &req)
	var texts []string
	if err == nil && len(req.Input) == 0 {
		err = missing("input")
	}
	if err == nil {
		texts, err = prompts(req.Input)
	}
	if err != nil {
		writeError(w, err)
		return
	}
	tokens := 0
	for _, text := range texts {
		tokens += countTokens(text)
	}
	if !s.shortWork(w, r, tokens) {
		return
	}
	data := []map[string]any{}
	for i, text := range texts {
		p := similarity(text, "label")
		label := "LABEL_0"
		if p < 0.5 {
			label = "LABEL_1"
		}
		data = append(data, map[string]any{"index": i, "label": label, "probs": []float64{p, 1 - p}, "num_classes": 2})
	}
	writeJSON(w, http.StatusOK, map[string]any{"id": "classify-" + newID(), "object": "list", "created": time.Now().Unix(), "model": req.Model, "data": data, "usage": usage{PromptTokens: tokens, TotalTokens: tokens}})
}
