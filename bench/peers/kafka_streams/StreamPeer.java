import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonGenerator;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.core.JsonToken;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.sun.management.OperatingSystemMXBean;
import com.uber.h3core.H3Core;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.StringWriter;
import java.io.UncheckedIOException;
import java.lang.management.ManagementFactory;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.GeneralSecurityException;
import java.security.MessageDigest;
import java.time.DateTimeException;
import java.time.LocalDateTime;
import java.time.ZoneOffset;
import java.util.*;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.kafka.common.header.internals.RecordHeaders;
import org.apache.kafka.common.serialization.*;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.*;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.Stores;

/**
 * The stream stage in Kafka Streams, for comparison: StreamPeer BOOTSTRAP DIRECTORY.
 *
 * <p>It validates, deduplicates with a store in memory (and its changelog), enriches, and writes one topic for all
 * events, one for each type, and dead letters, exactly once (version 2).
 *
 * <p>It does less than the stream stage: no time zone, which no small library knows, so the local time is UTC; no
 * window that forgets, registry, newest states, account, replays, erasure, metrics. Identities are SHA-256: the JDK has
 * no BLAKE2b.
 */
public final class StreamPeer implements Processor<byte[], byte[], byte[], byte[]> {
  static final String RAW = "telematics.raw.v1";
  static final String PEER = "peer.kafka_streams.";
  static final String TYPE = "ce_type", TYPE_PREFIX = "telematics.event.";
  static final long LEAD_US = 86_400_000_000L, SKEW_US = 300_000_000L, SINCE_2010_US = 1_262_304_000_000_000L;
  static final List<String> FIELDS = List.of(
      "Event", "Changes", "Device_Time", "IMEI", "Server_Time", "Coordinates", "Location", "Geofence_Name");
  static final int EVENT = 0, CHANGES = 1, DEVICE_TIME = 2, IMEI = 3, SERVER_TIME = 4, COORDINATES = 5, LOCATION = 6,
      GEOFENCE = 7;
  static final int[] LENGTH_MAX = {128, 0, 0, 0, 0, 64, 2048, 512};
  static final Map<String, String[]> KINDS = Map.of(
      "overspeed", new String[] {"driving", "warning"}, "fuel_fill", new String[] {"fuel", "info"},
      "fuel_drain", new String[] {"fuel", "critical"}, "geofence_enter", new String[] {"geofence", "info"},
      "geofence_exit", new String[] {"geofence", "info"}, "geofence", new String[] {"geofence", "info"},
      "tampering", new String[] {"security", "critical"}, "power_cut", new String[] {"security", "critical"},
      "sos", new String[] {"emergency", "critical"});
  static final AtomicLong PROCESSED = new AtomicLong(); // by all tasks: each has an instance
  static final String[] OTHER = {"other", "info"};

  record Violation(String code, String field, String found, String expected) {}

  private final ObjectMapper mapper = new ObjectMapper();
  private final JsonFactory json = mapper.getFactory();
  private final H3Core h3;
  private final MessageDigest digest;
  private ProcessorContext<byte[], byte[]> context;
  private KeyValueStore<Bytes, byte[]> window;

  // What has been read of the current payload: the fields by their place in FIELDS.
  private final JsonToken[] tokens = new JsonToken[FIELDS.size()];
  private final String[] texts = new String[FIELDS.size()];
  private List<Violation> violations;
  private StringWriter extra;
  private boolean duplicateKeys, timeCut;
  private long changes;
  private double latitude, longitude;

  StreamPeer() {
    try {
      h3 = H3Core.newInstance();
      digest = MessageDigest.getInstance("SHA-256");
    } catch (IOException | GeneralSecurityException impossible) {
      throw new IllegalStateException(impossible);
    }
  }

  public static void main(String[] arguments) {
    Properties settings = new Properties();
    settings.put(StreamsConfig.APPLICATION_ID_CONFIG, "peer-kafka-streams");
    settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, arguments[0]);
    settings.put(StreamsConfig.STATE_DIR_CONFIG, arguments[1]);
    settings.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
    settings.put(StreamsConfig.producerPrefix("compression.type"), "zstd");
    settings.put(StreamsConfig.producerPrefix("compression.zstd.level"), "1");
    settings.put(StreamsConfig.producerPrefix("batch.size"), "262144"); // the default of 16 KiB compresses badly
    Serde<byte[]> bytes = Serdes.ByteArray();
    Topology topology = new Topology()
        .addSource("raw", bytes.deserializer(), bytes.deserializer(), RAW)
        .addProcessor("stage", StreamPeer::new, "raw")
        .addStateStore(
            Stores.keyValueStoreBuilder(Stores.inMemoryKeyValueStore("window"), Serdes.Bytes(), bytes), "stage")
        .addSink("events", PEER + "events", bytes.serializer(), bytes.serializer(), "stage")
        .addSink("dead", PEER + "dead", bytes.serializer(), bytes.serializer(), "stage")
        .addSink("types", (key, value, record) -> topicOf(record.headers().lastHeader(TYPE).value()),
            bytes.serializer(), bytes.serializer(), "stage");
    KafkaStreams streams = new KafkaStreams(topology, settings);
    streams.setUncaughtExceptionHandler(error -> {
      error.printStackTrace();
      Runtime.getRuntime().halt(1);
      return null;
    });
    Runtime.getRuntime().addShutdownHook(new Thread(streams::close));
    streams.start();
  }

  private static String topicOf(byte[] type) {
    String name = new String(type, StandardCharsets.UTF_8);
    return PEER + "event." + name.substring(TYPE_PREFIX.length(), name.length() - ".v1".length());
  }

  @Override
  public void init(ProcessorContext<byte[], byte[]> context) {
    this.context = context;
    window = context.getStateStore("window");
  }

  @Override
  public void process(Record<byte[], byte[]> raw) {
    try {
      judge(raw, number(header(raw, "arrival_us")), header(raw, "receipt_id"));
    } catch (IOException impossible) {
      throw new UncheckedIOException(impossible);
    }
    long processed = PROCESSED.incrementAndGet();
    if (processed % 1_000 == 0) report(processed);
  }

  /** Forward two records for a new event, one for a dead letter, and none for a duplicate. */
  private void judge(Record<byte[], byte[]> raw, long receivedUs, String receiptId) throws IOException {
    if (read(raw.value())) {
      String event = validEvent();
      String imei = checkedImei(), geofence = geofence();
      boolean located = position();
      String location = nullable(LOCATION);
      long deviceUs = time(DEVICE_TIME, receivedUs), serverUs = time(SERVER_TIME, receivedUs);
      if (deviceUs >= 0 && serverUs >= 0 && deviceUs > serverUs) {
        broken("device_time_after_server_time", DEVICE_TIME, "a time not after Server_Time");
      }
      if (violations.isEmpty() && located) {
        byte[] id = identity(imei + '\0' + deviceUs + '\0' + event + '\0' + (geofence == null ? "" : '\1' + geofence));
        byte[] content = ByteBuffer.allocate(24).putLong(changes).putDouble(latitude).putDouble(longitude).array();
        byte[] known = window.putIfAbsent(Bytes.wrap(id), content);
        if (known == null) {
          String uuid = uuid(id);
          byte[] value = encode(uuid, event, imei, deviceUs, serverUs, receivedUs, location, geofence, receiptId);
          Record<byte[], byte[]> output = raw.withValue(value).withHeaders(headers(uuid, event, imei, deviceUs));
          context.forward(output, "events");
          context.forward(output, "types");
          return;
        }
        if (Arrays.equals(known, content)) return;
        violations.add(new Violation("conflict", "", "other content", "the content of the accepted event " + uuid(id)));
      }
    }
    byte[] id = identity(new String(raw.value(), StandardCharsets.ISO_8859_1));
    if (window.putIfAbsent(Bytes.wrap(id), new byte[0]) == null) {
      byte[] letter = deadLetter(uuid(id), raw.value(), receivedUs, receiptId);
      context.forward(raw.withValue(letter).withHeaders(new RecordHeaders()), "dead");
    }
  }

  /** Read the payload's fields; return false, with a violation, if it is no JSON object. */
  private boolean read(byte[] raw) throws IOException {
    violations = new ArrayList<>();
    Arrays.fill(tokens, null);
    Arrays.fill(texts, null);
    duplicateKeys = timeCut = false;
    extra = new StringWriter();
    try (JsonParser parser = json.createParser(raw); JsonGenerator unknown = json.createGenerator(extra)) {
      if (parser.nextToken() != JsonToken.START_OBJECT) {
        violations.add(new Violation("not_object", "", "", "a JSON object"));
        return false;
      }
      unknown.writeStartObject();
      while (parser.nextToken() == JsonToken.FIELD_NAME) {
        int at = FIELDS.indexOf(parser.currentName());
        JsonToken token = parser.nextToken();
        if (at < 0) {
          unknown.writeFieldName(parser.currentName());
          unknown.copyCurrentStructure(parser);
          continue;
        }
        duplicateKeys |= tokens[at] != null;
        tokens[at] = token;
        texts[at] = parser.getText();
        parser.skipChildren();
      }
      unknown.writeEndObject();
      if (parser.nextToken() == null) return true;
    } catch (JsonProcessingException error) {
      // reported below
    }
    violations.add(new Violation("not_json", "", "", "JSON in UTF-8"));
    return false;
  }

  private void broken(String code, int field, String expected) {
    String found = tokens[field] == null ? "nothing" : texts[field];
    violations.add(new Violation(code, FIELDS.get(field), found, expected));
  }

  /** Return a field's string if it is one and keeps the rules on strings, else null. */
  private String text(int field) {
    if (tokens[field] == null) {
      broken("missing", field, "a string");
    } else if (tokens[field] != JsonToken.VALUE_STRING) {
      broken("wrong_type", field, "a string");
    } else if (LENGTH_MAX[field] > 0 && texts[field].length() > LENGTH_MAX[field]) {
      broken("too_long", field, "a shorter string");
    } else if (texts[field].indexOf('\0') >= 0) {
      broken("bad_characters", field, "a string without NUL");
    } else {
      return texts[field];
    }
    return null;
  }

  private String nullable(int field) {
    return tokens[field] == null || tokens[field] == JsonToken.VALUE_NULL ? null : text(field);
  }

  private String geofence() {
    String name = nullable(GEOFENCE);
    return name == null || name.isBlank() ? null : name;
  }

  /** Normalise the event's type, and read its changes; beyond ASCII this does less than the stream stage. */
  private String validEvent() {
    if (tokens[CHANGES] == null) {
      broken("missing", CHANGES, "an integer");
    } else if (tokens[CHANGES] != JsonToken.VALUE_NUMBER_INT) {
      broken("wrong_type", CHANGES, "an integer");
    } else {
      changes = number(texts[CHANGES]);
    }
    String sent = text(EVENT);
    if (sent == null || KINDS.containsKey(sent)) return sent;
    String name = sent.strip().toLowerCase(Locale.ROOT).replaceAll("[\\s-]+", "_");
    if (name.isEmpty()) broken("empty", EVENT, "a string with visible characters");
    return name.equals("geofence_entry") ? "geofence_enter" : name;
  }

  private String checkedImei() {
    String imei = text(IMEI);
    if (imei != null && !(imei.length() == 15 && imei.chars().allMatch(digit -> '0' <= digit && digit <= '9'))) {
      broken("bad_format", IMEI, "a string of 15 digits");
    }
    return imei;
  }

  private boolean position() {
    String text = text(COORDINATES);
    if (text == null) return false;
    int comma = text.indexOf(',');
    try {
      if (!text.chars().allMatch(c -> '0' <= c && c <= '9' || c == '.' || c == ',' || c == ' ' || c == '-')) {
        throw new NumberFormatException(text);
      }
      latitude = Double.parseDouble(text.substring(0, Math.max(comma, 0))) + 0.0;
      longitude = Double.parseDouble(text.substring(comma + 1)) + 0.0;
    } catch (NumberFormatException error) {
      broken("bad_format", COORDINATES, "\"latitude,longitude\" in decimal degrees");
      return false;
    }
    if (Math.abs(latitude) <= 90 && Math.abs(longitude) <= 180) return true;
    broken("out_of_range", COORDINATES, "latitude from -90 to 90, longitude from -180 to 180");
    return false;
  }

  /** Return a time in µs since the epoch; -1, with a violation, if it is none or too far ahead. */
  private long time(int field, long receivedUs) {
    String text = text(field);
    if (text == null) return -1;
    try {
      int zone = text.endsWith("Z") ? text.length() - 1 : Math.max(text.lastIndexOf('+'), text.lastIndexOf('-'));
      String fraction = zone > 19 ? text.substring(20, zone) : "";
      boolean utc = List.of("Z", "+0000", "+00:00", "-0000", "-00:00").contains(text.substring(Math.max(zone, 0)));
      if (!utc || zone < 19 || text.charAt(10) != 'T' || zone > 19 && text.charAt(19) != '.') {
        throw new NumberFormatException(text);
      }
      LocalDateTime moment = LocalDateTime.of(digits(text, 0, 4), digits(text, 5, 7), digits(text, 8, 10),
          digits(text, 11, 13), digits(text, 14, 16), digits(text, 17, 19));
      long nanoseconds = fraction.isEmpty() ? 0 : number((fraction + "000000000").substring(0, 9));
      timeCut |= nanoseconds % 1_000 != 0;
      long us = moment.toEpochSecond(ZoneOffset.UTC) * 1_000_000 + nanoseconds / 1_000;
      if (us < 0) {
        broken("out_of_range", field, "a time since 1970");
      } else if (us > receivedUs + LEAD_US) {
        broken("in_future", field, "a time not after the arrival");
      }
      return us;
    } catch (NumberFormatException | StringIndexOutOfBoundsException error) {
      broken("bad_format", field, "YYYY-MM-DDTHH:MM:SS.SSSSSS+0000");
    } catch (DateTimeException error) {
      broken("out_of_range", field, "a time that exists");
    }
    return -1;
  }

  private static int digits(String text, int begin, int end) {
    return Integer.parseInt(text, begin, end, 10);
  }

  private static long number(String text) {
    return Long.parseLong(text);
  }

  /** Encode the event as it stands on the topics; names and order are those of schemas/event.py. */
  private byte[] encode(String uuid, String event, String imei, long deviceUs, long serverUs, long receivedUs,
      String location, String geofence, String receiptId) throws IOException {
    String[] kind = KINDS.getOrDefault(event, OTHER);
    String deviceTime = rfc3339(deviceUs);
    boolean imeiValid = isCheckDigitRight(imei), renamed = !event.equals(texts[EVENT]);
    ByteArrayOutputStream buffer = new ByteArrayOutputStream(1024);
    try (JsonGenerator out = json.createGenerator(buffer)) {
      out.writeStartObject();
      out.writeStringField("event_id", uuid);
      out.writeStringField("event", event);
      out.writeNumberField("changes", changes);
      out.writeStringField("imei", imei);
      out.writeStringField("device_time", deviceTime);
      out.writeStringField("server_time", rfc3339(serverUs));
      out.writeStringField("received_at", rfc3339(receivedUs));
      out.writeNumberField("latitude", latitude);
      out.writeNumberField("longitude", longitude);
      out.writeStringField("location", location);
      out.writeStringField("geofence_name", geofence);
      out.writeStringField("category", kind[0]);
      out.writeStringField("severity", kind[1]);
      out.writeStringField("h3_r7", Long.toHexString(h3.latLngToCell(latitude, longitude, 7)));
      out.writeStringField("h3_r9", Long.toHexString(h3.latLngToCell(latitude, longitude, 9)));
      out.writeStringField("time_zone", "UTC");
      out.writeStringField("device_time_local", deviceTime.substring(0, 26) + "+00:00");
      out.writeBooleanField("imei_valid", imeiValid);
      out.writeStringField("tac", imei.substring(0, 8));
      out.writeNumberField("device_delay_ms", Math.floorDiv(serverUs - deviceUs, 1_000));
      out.writeNumberField("platform_delay_ms", Math.floorDiv(receivedUs - serverUs, 1_000));
      for (String unregistered : List.of("vehicle", "fleet", "driver")) out.writeNullField(unregistered);
      out.writeStringField("event_as_sent", renamed ? texts[EVENT] : null);
      out.writeArrayFieldStart("warnings");
      if (latitude == 0 && longitude == 0) out.writeString("position_zero");
      if (deviceUs < SINCE_2010_US) out.writeString("device_time_before_2010");
      if (Math.max(serverUs, deviceUs) > receivedUs + SKEW_US) out.writeString("clock_ahead");
      if (imei.equals("000000000000000")) out.writeString("imei_zero");
      if (!imeiValid) out.writeString("imei_check_digit");
      if (location == null) out.writeString("location_missing");
      if (renamed) out.writeString("type_normalised");
      if (timeCut) out.writeString("time_cut");
      if (duplicateKeys) out.writeString("duplicate_keys");
      out.writeEndArray();
      out.writeFieldName("extra");
      out.writeRawValue(extra.toString());
      out.writeStringField("receipt_id", receiptId);
      out.writeNullField("sender");
      var source = context.recordMetadata().orElseThrow();
      out.writeObjectFieldStart("raw");
      out.writeStringField("topic", source.topic());
      out.writeNumberField("partition", source.partition());
      out.writeNumberField("offset", source.offset());
      out.writeEndObject();
      out.writeEndObject();
    }
    return buffer.toByteArray();
  }

  private byte[] deadLetter(String uuid, byte[] payload, long receivedUs, String receiptId) throws IOException {
    return mapper.writeValueAsBytes(Map.of("dead_letter_id", uuid, "reasons", violations, "received_at",
        rfc3339(receivedUs), "receipt_id", receiptId, "payload", new String(payload, StandardCharsets.UTF_8)));
  }

  /** Return the event's headers (CloudEvents, see schemas/headers.py). */
  private static RecordHeaders headers(String uuid, String event, String imei, long deviceUs) {
    String type = TYPE_PREFIX + event + ".v1", schema = KINDS.containsKey(event) ? type : TYPE_PREFIX + "other.v1";
    String[] pairs = {"ce_specversion", "1.0", TYPE, type, "ce_source", "urn:eventpush", "ce_dataschema",
        "urn:eventpush:" + schema, "content-type", "application/json", "ce_id", uuid, "ce_time", rfc3339(deviceUs),
        "ce_subject", imei};
    RecordHeaders headers = new RecordHeaders();
    for (int at = 0; at < pairs.length; at += 2) headers.add(pairs[at], pairs[at + 1].getBytes(StandardCharsets.UTF_8));
    return headers;
  }

  private static String header(Record<byte[], byte[]> raw, String name) {
    return new String(raw.headers().lastHeader(name).value(), StandardCharsets.UTF_8);
  }

  private byte[] identity(String text) {
    return Arrays.copyOf(digest.digest(text.getBytes(StandardCharsets.UTF_8)), 16);
  }

  private static String uuid(byte[] id) {
    ByteBuffer halves = ByteBuffer.wrap(id);
    return new UUID(halves.getLong(), halves.getLong()).toString();
  }

  private static String rfc3339(long us) {
    LocalDateTime time = LocalDateTime.ofEpochSecond(Math.floorDiv(us, 1_000_000), 0, ZoneOffset.UTC);
    StringBuilder text = new StringBuilder(27);
    padded(text, time.getYear(), 1_000).append('-');
    padded(text, time.getMonthValue(), 10).append('-');
    padded(text, time.getDayOfMonth(), 10).append('T');
    padded(text, time.getHour(), 10).append(':');
    padded(text, time.getMinute(), 10).append(':');
    padded(text, time.getSecond(), 10).append('.');
    return padded(text, Math.floorMod(us, 1_000_000), 100_000).append('Z').toString();
  }

  private static StringBuilder padded(StringBuilder text, int number, int power) {
    for (; power > 1 && number < power; power /= 10) text.append('0');
    return text.append(number);
  }

  /** Check the last digit of an IMEI (Luhn, 3GPP TS 23.003 annex B). */
  private static boolean isCheckDigitRight(String imei) {
    int sum = 0;
    for (int at = 0; at < imei.length(); at++) {
      int value = (imei.charAt(at) - '0') * (1 + at % 2);
      sum += value / 10 + value % 10;
    }
    return sum % 10 == 0;
  }

  /** Print the progress with its cost so far, as bench/peers/progress.py does. */
  private static void report(long events) {
    long cpuNs = ((OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean()).getProcessCpuTime();
    System.out.printf(Locale.ROOT, "{\"events\":%d,\"cpu_s\":%.3f,\"wall_s\":%.3f,\"rss_bytes\":%d}%n",
        events, cpuNs / 1e9, System.nanoTime() / 1e9, residentBytes());
  }

  /** Return the memory in use; 0 where there is no /proc. */
  private static long residentBytes() {
    try {
      return number(Files.readString(Path.of("/proc/self/statm")).split(" ")[1]) * 4096;
    } catch (IOException error) {
      return 0;
    }
  }
}
