package benchmarks;

import ai.onnxruntime.OrtException;
import ai.onnxruntime.OrtSession;
import java.io.FileInputStream;
import java.io.IOException;
import java.time.Duration;
import java.util.Properties;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import org.apache.kafka.streams.processor.api.ProcessorSupplier;

/** Runs the topology source, score, sink until SIGTERM; its one argument is the file that configures all of it. */
public final class Worker {
    private Worker() {}

    /** Kafka Streams' own settings, and beside them {@code model}, {@code input}, {@code output}, {@code batched}. */
    public static void main(String[] arguments) throws IOException, OrtException {
        Properties settings = new Properties();
        try (FileInputStream file = new FileInputStream(arguments[0])) {
            settings.load(file);
        }
        settings.put(StreamsConfig.DEFAULT_KEY_SERDE_CLASS_CONFIG, Serdes.ByteArraySerde.class);
        settings.put(StreamsConfig.DEFAULT_VALUE_SERDE_CLASS_CONFIG, Serdes.ByteArraySerde.class);
        KafkaStreams streams = new KafkaStreams(topology(settings), settings);
        streams.setUncaughtExceptionHandler(error -> {
            error.printStackTrace();
            return StreamThreadExceptionResponse.SHUTDOWN_CLIENT;
        });
        streams.setStateListener((now, before) -> {
            if (now == KafkaStreams.State.ERROR) {
                Runtime.getRuntime().halt(1);
            }
        });
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            streams.close(Duration.ofSeconds(20));
            // Java ends with 143 after SIGTERM, however well it went.
            Runtime.getRuntime().halt(0);
        }));
        streams.start();
    }

    private static Topology topology(Properties settings) throws OrtException {
        OrtSession session = Model.open(settings.getProperty("model"));
        ProcessorSupplier<byte[], byte[], byte[], byte[]> scoring = () -> {
            try {
                if (Boolean.parseBoolean(settings.getProperty("batched"))) {
                    Duration interval = Duration.ofMillis(Long.parseLong(settings.getProperty("commit.request.ms")));
                    return new ScoreBatches(session, interval);
                }
                return new ScoreEach(session);
            } catch (OrtException error) {
                throw new IllegalStateException(error);
            }
        };
        return new Topology()
                .addSource("events", settings.getProperty("input"))
                .addProcessor("score", scoring, "events")
                .addSink("outputs", settings.getProperty("output"), "score");
    }
}
