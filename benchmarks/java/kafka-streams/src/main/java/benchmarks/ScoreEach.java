package benchmarks;

import ai.onnxruntime.OrtException;
import ai.onnxruntime.OrtSession;
import java.io.IOException;
import org.apache.kafka.streams.processor.api.ContextualProcessor;
import org.apache.kafka.streams.processor.api.Record;

/** Scores one record after the other, each when it comes: whatever Kafka Streams commits has been forwarded. */
final class ScoreEach extends ContextualProcessor<byte[], byte[], byte[], byte[]> {
    private final Json json = new Json();
    private final Model model;

    ScoreEach(OrtSession session) throws OrtException {
        model = new Model(session, 1);
    }

    @Override
    public void process(Record<byte[], byte[]> event) {
        try {
            String id = json.read(event.value(), model.rows);
            model.run();
            context().forward(event.withValue(json.write(id, model.values, 0, model.outputWidth)));
        } catch (IOException | OrtException error) {
            throw new IllegalStateException(error);
        }
    }
}
