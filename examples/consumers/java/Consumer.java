import java.nio.charset.StandardCharsets;
import java.nio.file.FileAlreadyExistsException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.Properties;
import org.apache.kafka.clients.consumer.CommitFailedException;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.errors.RebalanceInProgressException;
import org.apache.kafka.common.errors.WakeupException;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

/**
 * Reads a topic: java -cp 'libs/*' Consumer.java BOOTSTRAP TOPIC GROUP DIRECTORY. The work stands for yours: it creates a
 * file named by the event's id. A file that exists is not created again, so an event is worked on once.
 */
class Consumer {
    public static void main(String[] args) throws Exception {
        var settings = new Properties();
        settings.put("bootstrap.servers", args[0]);
        settings.put("group.id", args[2]);
        settings.put("isolation.level", "read_committed");
        settings.put("enable.auto.commit", "false");
        settings.put("auto.offset.reset", "earliest");
        settings.put("session.timeout.ms", "10000");
        var consumer = new KafkaConsumer<>(settings, new ByteArrayDeserializer(), new ByteArrayDeserializer());
        var main = Thread.currentThread();
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            consumer.wakeup();
            try { main.join(); } catch (InterruptedException interrupted) { Thread.currentThread().interrupt(); }
        }));
        try (consumer) {
            consumer.subscribe(List.of(args[1]));
            while (true) { // partitions move during poll only: what it returned before is worked on and committed
                for (var record : consumer.poll(Duration.ofMillis(500))) work(Path.of(args[3]), record);
                try {
                    consumer.commitSync();
                } catch (CommitFailedException | RebalanceInProgressException moved) {
                    System.err.println("partitions moved; their events are delivered again: " + moved.getMessage());
                }
            }
        } catch (WakeupException stopped) { /* closed by then */ }
    }

    static void work(Path directory, ConsumerRecord<byte[], byte[]> record) throws Exception {
        var id = new String(record.headers().lastHeader("ce_id").value(), StandardCharsets.UTF_8);
        try {
            Files.createFile(directory.resolve(id));
        } catch (FileAlreadyExistsException again) { return; }
        System.out.println("done " + id);
    }
}
