// The ingress in Go, for comparison: ingress BOOTSTRAP PORT.
//
// POST /api/events with one event is answered 200 once Kafka has acknowledged it on all in-sync replicas. The body is
// checked as the ingress checks it: size, UTF-8, JSON, an object; its IMEI is the key. It does less than the ingress:
// one event a request, no gzip, tokens, signatures, validation, tracing or metrics, and no time limit for slow senders
// but net/http's.
package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net/http"
	"os"
	"strconv"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/valyala/fastjson"
)

const (
	rawTopic     = "telematics.raw.v1"
	bodyMax      = 1 << 20
	inflightMax  = 10_000
	keyMax       = 64
	zstdLevel    = 1
	linger       = time.Millisecond
	publishLimit = 1500 * time.Millisecond
)

var accepted = []byte(`{"status":"success","message":"Event received successfully."}`)

func main() {
	client, err := kgo.NewClient(
		kgo.SeedBrokers(os.Args[1]),
		kgo.DefaultProduceTopic(rawTopic),
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.ProducerBatchCompression(kgo.ZstdCompression().WithLevel(zstdLevel)),
		kgo.ProducerLinger(linger),
		kgo.RecordDeliveryTimeout(publishLimit),
	)
	if err != nil {
		log.Fatal(err)
	}
	server := &receiver{client: client, prefix: randomText()}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /api/events", server.receive)
	mux.HandleFunc("GET /readyz", server.ready)
	log.Fatal((&http.Server{
		Addr: "127.0.0.1:" + os.Args[2], Handler: mux, ReadHeaderTimeout: 10 * time.Second,
	}).ListenAndServe())
}

type receiver struct {
	client   *kgo.Client
	parsers  fastjson.ParserPool
	prefix   string
	requests atomic.Int64
	inflight atomic.Int64
}

func (s *receiver) ready(response http.ResponseWriter, request *http.Request) {
	if s.client.Ping(request.Context()) != nil {
		refuse(response, http.StatusServiceUnavailable, "Kafka is not reachable")
	}
}

func (s *receiver) receive(response http.ResponseWriter, request *http.Request) {
	arrivalUs := time.Now().UnixMicro()
	receiptID := s.prefix + "-" + strconv.FormatInt(s.requests.Add(1), 16)
	response.Header().Set("X-Receipt-Id", receiptID)
	defer s.inflight.Add(-1)
	if s.inflight.Add(1) > inflightMax {
		refuse(response, http.StatusServiceUnavailable, "too many requests in flight; retry")
		return
	}
	if request.Header.Get("Content-Type") != "application/json" {
		refuse(response, http.StatusUnsupportedMediaType, "send application/json")
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(response, request.Body, bodyMax))
	if tooLarge := new(http.MaxBytesError); errors.As(err, &tooLarge) {
		refuse(response, http.StatusRequestEntityTooLarge, "the body exceeds its limit")
		return
	}
	if err != nil {
		refuse(response, http.StatusBadRequest, "the body was cut off")
		return
	}
	key, problem := s.keyOf(body)
	if problem != "" {
		refuse(response, http.StatusBadRequest, problem)
		return
	}
	record := &kgo.Record{Key: key, Value: body, Timestamp: time.UnixMicro(arrivalUs), Headers: []kgo.RecordHeader{
		{Key: "arrival_us", Value: strconv.AppendInt(nil, arrivalUs, 10)},
		{Key: "receipt_id", Value: []byte(receiptID)},
	}}
	if s.client.ProduceSync(context.WithoutCancel(request.Context()), record).FirstErr() != nil {
		refuse(response, http.StatusServiceUnavailable, "not acknowledged by Kafka in time; retry")
		return
	}
	response.Header().Set("Content-Type", "application/json")
	_, _ = response.Write(accepted) // if it fails, the sender is gone
}

// keyOf checks that the body is a JSON object, and returns its IMEI: none if it has no usable one.
func (s *receiver) keyOf(body []byte) (key []byte, problem string) {
	if !utf8.Valid(body) {
		return nil, "body is not UTF-8"
	}
	if err := fastjson.ValidateBytes(body); err != nil {
		return nil, "body is not JSON: " + err.Error()
	}
	parser := s.parsers.Get()
	defer s.parsers.Put(parser)
	parsed, err := parser.ParseBytes(body)
	if err != nil {
		return nil, "body is not JSON: " + err.Error()
	}
	if parsed.Type() != fastjson.TypeObject {
		return nil, "body is not a JSON object"
	}
	if imei := parsed.GetStringBytes("IMEI"); 0 < len(imei) && len(imei) <= keyMax {
		key = append(key, imei...) // the parser reuses its memory
	}
	return key, ""
}

// refuse answers in the API's form.
func refuse(response http.ResponseWriter, status int, message string) {
	response.Header().Set("Content-Type", "application/json")
	if status == http.StatusServiceUnavailable {
		response.Header().Set("Retry-After", "1")
	}
	response.WriteHeader(status)
	_ = json.NewEncoder(response).Encode(map[string]string{"status": "error", "message": message})
}

func randomText() string {
	bytes := make([]byte, 6)
	_, _ = rand.Read(bytes) // never fails
	return hex.EncodeToString(bytes)
}
