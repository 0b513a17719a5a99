// Read a topic with franz-go: go run . BOOTSTRAP TOPIC GROUP DIRECTORY
//
// The work stands for yours: it creates a file named by the event's id. A file that exists is not created again, so an
// event that is delivered again is worked on once.
package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

func main() {
	bootstrap, topic, group, directory := os.Args[1], os.Args[2], os.Args[3], os.Args[4]
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	client, err := kgo.NewClient(kgo.SeedBrokers(bootstrap), kgo.ConsumeTopics(topic), kgo.ConsumerGroup(group),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.DisableAutoCommit(), kgo.SessionTimeout(10*time.Second),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.BlockRebalanceOnPoll())
	if err != nil {
		log.Fatal(err)
	}
	defer client.CloseAllowingRebalance()
	for ctx.Err() == nil {
		fetches := client.PollRecords(ctx, 500)
		fetches.EachRecord(func(record *kgo.Record) { work(directory, record) })
		if err := client.CommitRecords(context.Background(), fetches.Records()...); err != nil {
			log.Print("partitions moved; their events are delivered again: ", err)
		}
		client.AllowRebalance() // partitions move here only, when what was read is worked on and committed
	}
}

func work(directory string, record *kgo.Record) {
	id := ""
	for _, header := range record.Headers {
		if header.Key == "ce_id" {
			id = string(header.Value)
		}
	}
	file, err := os.OpenFile(filepath.Join(directory, id), os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return
	} else if err != nil {
		log.Fatal(err)
	}
	file.Close()
	fmt.Println("done", id)
}
