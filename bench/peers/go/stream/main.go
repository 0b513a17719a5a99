// The stream stage in Go, for comparison: stream BOOTSTRAP.
//
// It reads the raw topic, validates, deduplicates, enriches, and writes one topic for all events, one for each type,
// and dead letters, in transactions with the consumer's offsets (franz-go's GroupTransactSession), compressed as ours.
//
// It does less than the stream stage: its window is in memory only, so a restart forgets it, and it knows neither the
// registry of devices, the newest state of each device, the account, replays, erasure nor metrics. A transaction that
// does not commit ends it.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	rawTopic   = "telematics.raw.v1"
	events     = "peer.go.events"
	deadLetter = "peer.go.dead"
	typePrefix = "peer.go.event."
	pollMax    = 10_000
	zstdLevel  = 1
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	session, err := kgo.NewGroupTransactSession(
		kgo.SeedBrokers(os.Args[1]),
		kgo.ConsumeTopics(rawTopic),
		kgo.ConsumerGroup("peer-go"),
		kgo.TransactionalID("peer-go"),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.RequireStableFetchOffsets(),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerBatchCompression(kgo.ZstdCompression().WithLevel(zstdLevel)),
		kgo.MaxBufferedRecords(4*pollMax),
	)
	if err != nil {
		log.Fatal(err)
	}
	defer session.Close()
	run(ctx, session)
}

func run(ctx context.Context, session *kgo.GroupTransactSession) {
	stage := newStage()
	processed := 0
	for {
		fetches := session.PollRecords(ctx, pollMax)
		if ctx.Err() != nil {
			return
		}
		if err := fetches.Err(); err != nil {
			log.Fatal(err)
		}
		if fetches.NumRecords() == 0 {
			continue
		}
		if err := session.Begin(); err != nil {
			log.Fatal(err)
		}
		fetches.EachRecord(func(raw *kgo.Record) {
			for _, output := range stage.process(raw) {
				session.Produce(ctx, output, func(_ *kgo.Record, err error) {
					if err != nil && ctx.Err() == nil {
						log.Fatal(err)
					}
				})
			}
		})
		if committed, err := session.End(ctx, kgo.TryCommit); ctx.Err() == nil && (err != nil || !committed) {
			log.Fatalf("the transaction was not committed: %v", err)
		}
		processed += fetches.NumRecords()
		report(processed)
	}
}

// stage turns raw records into records to publish.
type stage struct {
	reader   *reader
	enricher *enricher
	window   window
}

func newStage() *stage {
	return &stage{newReader(), newEnricher(), window{newer: map[digest]content{}}}
}

// process returns two records for a new event, one for a dead letter, and none for a duplicate.
func (s *stage) process(raw *kgo.Record) []*kgo.Record {
	receivedUs, receiptID := arrival(raw)
	event, violations := s.reader.read(raw.Value, receivedUs)
	if violations == nil {
		id := event.identity()
		found, known := s.window.get(id)
		if !known {
			s.window.add(id, event.content, receivedUs)
			value := s.enricher.encode(event, id, raw, receivedUs, receiptID)
			headers := s.enricher.headers(event, id)
			return []*kgo.Record{
				output(raw, events, value, headers),
				output(raw, typePrefix+event.kind.name, value, headers),
			}
		}
		if found == event.content {
			return nil
		}
		violations = []violation{{"conflict", "", "other content", "the content of the accepted event " + id.uuid()}}
	}
	id := payloadDigest(raw.Value)
	if _, known := s.window.get(id); known {
		return nil
	}
	s.window.add(id, content{}, receivedUs)
	value, err := json.Marshal(map[string]any{
		"dead_letter_id": id.uuid(), "reasons": violations, "payload": string(raw.Value), "receipt_id": receiptID,
		"received_at": time.UnixMicro(receivedUs).UTC().Format(timeFormat),
	})
	if err != nil {
		log.Fatal(err)
	}
	return []*kgo.Record{output(raw, deadLetter, value, nil)}
}

// output returns a record with the key and partition of the raw one.
func output(raw *kgo.Record, topic string, value []byte, headers []kgo.RecordHeader) *kgo.Record {
	return &kgo.Record{
		Topic: topic, Partition: raw.Partition, Key: raw.Key, Value: value, Headers: headers, Timestamp: raw.Timestamp,
	}
}

func arrival(raw *kgo.Record) (receivedUs int64, receiptID string) {
	for _, header := range raw.Headers {
		switch header.Key {
		case "arrival_us":
			receivedUs, _ = strconv.ParseInt(string(header.Value), 10, 64)
		case "receipt_id":
			receiptID = string(header.Value)
		}
	}
	return receivedUs, receiptID
}

// window remembers identities for one to two days of arrivals.
type window struct {
	newer, older map[digest]content
	turnsUs      int64
}

const dayUs = 86_400_000_000

func (w *window) get(id digest) (content, bool) {
	if found, known := w.newer[id]; known {
		return found, true
	}
	found, known := w.older[id]
	return found, known
}

func (w *window) add(id digest, found content, receivedUs int64) {
	if receivedUs >= w.turnsUs {
		w.older, w.newer, w.turnsUs = w.newer, map[digest]content{}, receivedUs+dayUs
	}
	w.newer[id] = found
}

var began = time.Now()

// report prints the progress with its cost so far, as bench/peers/progress.py does.
func report(events int) {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		log.Fatal(err)
	}
	cpu := time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
	fmt.Printf(`{"events":%d,"cpu_s":%f,"wall_s":%f,"rss_bytes":%d}`+"\n",
		events, cpu.Seconds(), time.Since(began).Seconds(), residentBytes())
}

// residentBytes returns the memory in use; 0 where there is no /proc.
func residentBytes() int {
	statm, _ := os.ReadFile("/proc/self/statm")
	if fields := strings.Fields(string(statm)); len(fields) > 1 {
		pages, _ := strconv.Atoi(fields[1])
		return pages * os.Getpagesize()
	}
	return 0
}
