package benchmarks;

import ai.onnxruntime.OnnxTensor;
import ai.onnxruntime.OrtEnvironment;
import ai.onnxruntime.OrtException;
import ai.onnxruntime.OrtSession;
import ai.onnxruntime.TensorInfo;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.FloatBuffer;
import java.util.Map;

/**
 * The model, opened as for every other system: one thread, which does not spin.
 *
 * <p>Rows and answers lie in direct buffers that ONNX Runtime uses in place. Not for several threads at once.
 */
final class Model {
    private static final OrtEnvironment ENVIRONMENT = OrtEnvironment.getEnvironment();

    /** Where the rows of the next call are appended. */
    final FloatBuffer rows;

    /** What the last call has answered, row by row. */
    final FloatBuffer values;

    /** Outputs of each row. */
    final int outputWidth;

    private final OrtSession session;
    private final String input;
    private final String output;
    private final int width;

    private int openRows;
    private OnnxTensor openInput;
    private OnnxTensor openOutput;

    Model(OrtSession session, int mostRows) throws OrtException {
        this.session = session;
        input = session.getInputNames().iterator().next();
        output = session.getOutputNames().iterator().next();
        width = lastDimension((TensorInfo) session.getInputInfo().get(input).getInfo());
        outputWidth = lastDimension((TensorInfo) session.getOutputInfo().get(output).getInfo());
        rows = direct(mostRows * width);
        values = direct(mostRows * outputWidth);
    }

    static OrtSession open(String file) throws OrtException {
        OrtSession.SessionOptions options = new OrtSession.SessionOptions();
        options.setIntraOpNumThreads(1);
        options.setInterOpNumThreads(1);
        options.setExecutionMode(OrtSession.SessionOptions.ExecutionMode.SEQUENTIAL);
        options.addConfigEntry("session.intra_op.allow_spinning", "0");
        return ENVIRONMENT.createSession(file, options);
    }

    /** Scores the rows appended since the last call. */
    void run() throws OrtException {
        int n = rows.flip().remaining() / width;
        if (n != openRows) {
            openTensors(n);
        }
        session.run(Map.of(input, openInput), Map.of(output, openOutput)).close();
        rows.clear();
    }

    private void openTensors(int n) throws OrtException {
        if (openRows > 0) {
            openInput.close();
            openOutput.close();
        }
        openInput = OnnxTensor.createTensor(ENVIRONMENT, rows, new long[] {n, width});
        FloatBuffer answers = values.duplicate().clear().limit(n * outputWidth);
        openOutput = OnnxTensor.createTensor(ENVIRONMENT, answers, new long[] {n, outputWidth});
        openRows = n;
    }

    private static int lastDimension(TensorInfo info) {
        long[] shape = info.getShape();
        return (int) shape[shape.length - 1];
    }

    private static FloatBuffer direct(int floats) {
        return ByteBuffer.allocateDirect(floats * Float.BYTES).order(ByteOrder.nativeOrder()).asFloatBuffer();
    }
}
